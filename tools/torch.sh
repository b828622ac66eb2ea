# shellcheck shell=bash disable=SC2154
# Which Python holds libtorch: the user's where it will do, else an environment of our own. Sourced by tools/setup.sh.
#
# Out: $state/python, two lines: the interpreter, and the folder of its torch package.

readonly venv=$state/venv

python_recorded() { sed -n 1p "$state/python" 2>/dev/null; }
torch_dir_recorded() { sed -n 2p "$state/python" 2>/dev/null; }

# The interpreter that STAGECOACH_TORCH names, itself or by its prefix; nothing where it is not set.
python_named() {
  local name=${STAGECOACH_TORCH:-}
  [[ -n $name ]] || return 0
  if [[ -d $name ]]; then
    name=$name/bin/python3
    [[ -x $name ]] || die "STAGECOACH_TORCH=$STAGECOACH_TORCH holds no bin/python3."
  fi
  # The record is read from other folders too. A link stays a link: an environment's interpreter knows itself by its path.
  [[ $name != */* || $name == /* ]] || name=$PWD/$name
  command -v "$name" || die "STAGECOACH_TORCH=$STAGECOACH_TORCH is neither a Python interpreter nor a prefix of one."
}

# True where the recorded choice still stands and the user has not asked for another.
python_recorded_is_wanted() {
  local named
  named=$(python_named) || exit 1
  [[ -x $(python_recorded) && -f $(torch_dir_recorded)/version.py ]] &&
    [[ -z $named || $named == "$(python_recorded)" ]]
}

# Prints "VERSION FOLDER" of an interpreter's torch; where we cannot build against it, fails and leaves the reason for why_not.
torch_of() {
  "$1" - 2>"$state/why_not" <<'PY'
import importlib.util, sys
if importlib.util.find_spec("torch") is None:
    sys.exit("it has no torch")
try:
    import torch
except Exception as error:
    sys.exit(f"its torch does not load: {error}")
if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6):
    sys.exit(f"its torch is {torch.__version__}, older than 2.6")
# Strings cross the border to libtorch: both sides must lay them out alike.
if not torch.compiled_with_cxx11_abi():
    sys.exit(f"its torch {torch.__version__} was compiled with the old C++ ABI")
print(torch.__version__, torch.__path__[0])
PY
}

# The last line: before it a torch may have warned of other things.
why_not() { tail -n 1 "$state/why_not"; }

python_choose() {
  python_recorded_is_wanted && return
  local python found
  python=$(python_named) || exit 1
  if [[ -n $python ]]; then
    found=$(torch_of "$python") || die "STAGECOACH_TORCH=$STAGECOACH_TORCH will not do: $(why_not)."
    say "torch: ${found%% *} of $python, as STAGECOACH_TORCH says"
  elif python=$(command -v python3) && found=$(torch_of "$python"); then
    say "torch: ${found%% *} of $python, which was here already"
  else
    [[ -z $python || $(why_not) == "it has no torch" ]] || say "torch: not that of $python: $(why_not)"
    venv_make
    python=$venv/bin/python
    found=$(torch_of "$python") || die "the torch in $venv will not do: $(why_not). Remove that folder and try again."
    say "torch: ${found%% *} of .stagecoach/venv, installed for this tree"
  fi
  printf '%s\n' "$python" "${found#* }" >"$state/python"
}

# pip cannot mend an installation that was cut off, so the environment counts only once `complete` is written. What was
# downloaded stays in pip's cache.
venv_make() {
  [[ -f $venv/complete && $(<"$venv/complete") == "$torch_version" ]] && return
  rm -rf "$venv"
  say "fetching torch $torch_version and numpy from the Python package index into .stagecoach/venv: 0.2 GB for a CPU wheel,"
  say "  3 GB for the CUDA one. (STAGECOACH_TORCH=PYTHON uses one you have; PIP_EXTRA_INDEX_URL chooses another index.)"
  step "make a Python environment" python3 -m venv "$venv"
  step "install torch $torch_version (pip)" "$venv/bin/python" -m pip install --progress-bar off \
    "torch==$torch_version" numpy
  echo "$torch_version" >"$venv/complete"
}

# Before `data …`: the Python packages that these inputs and this tokenizer need, where our own environment lacks them. Not with
# torch, for most runs never read Parquet. Somebody else's environment is left alone: the program says what to install there.
data_packages() {
  [[ $(python_recorded) == "$venv/bin/python" ]] || return 0
  local word parquet='' tokenizer='' packages=()
  for word; do
    case $word in
      *.parquet | parquet) parquet=yes ;;
      *.json) tokenizer=yes ;;
      *) [[ ! -f $word/tokenizer.json ]] || tokenizer=yes ;;
    esac
  done
  [[ -z $tokenizer ]] || data_has tokenizers || packages+=(tokenizers)
  [[ -z $parquet ]] || data_has pyarrow || packages+=(pyarrow)
  [[ ${#packages[@]} -gt 0 ]] || return 0
  say "fetching from the Python package index into .stagecoach/venv: ${packages[*]} (tokenizers: 10 MB, pyarrow: 55 MB)"
  lock
  step "install ${packages[*]} (pip)" "$venv/bin/python" -m pip install --progress-bar off "${packages[@]}"
  unlock
}

# True where our environment holds the package.
data_has() { [[ -n $(compgen -G "$venv/lib/python3*/site-packages/$1/__init__.py") ]]; }
