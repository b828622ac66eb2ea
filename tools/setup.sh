# shellcheck shell=bash disable=SC2154
# Brings this tree from a bare machine to built programs. Sourced by ./stagecoach and ./check, never run.
#
# In:      the tree; STAGECOACH_TORCH (an interpreter or prefix whose torch is to be used), STAGECOACH_JOBS (at most so
#          many compilers at once), STAGECOACH_PACKAGES=own (the packages are somebody else's care).
# Out:     packages, .stagecoach/venv, build/. Everything it says goes to stderr, so that a command's output stays clean.
# Resumes: every step first looks whether its result is there, so a stopped or failed set-up goes on where it was.

readonly torch_version=2.13.0
readonly state=$root/.stagecoach
readonly log=$state/setup.log
readonly build=$root/build
source "$root/tools/steps.sh"
source "$root/tools/packages.sh"
source "$root/tools/torch.sh"

# Compilers at once: the cores, or fewer where STAGECOACH_JOBS says so.
jobs=$(nproc)
if [[ -n ${STAGECOACH_JOBS:-} ]]; then
  [[ $STAGECOACH_JOBS =~ ^[1-9][0-9]*$ ]] || die "STAGECOACH_JOBS must be a whole number from 1, not '$STAGECOACH_JOBS'."
  ((jobs = STAGECOACH_JOBS < jobs ? STAGECOACH_JOBS : jobs))
fi

# One hash of all that decides how the build is configured; sources are not in it, ninja knows those.
inputs_hash() {
  {
    echo "$root $(python_recorded)"
    cat "$(torch_dir_recorded)/version.py" "$root"/tools/{packages.txt,*.sh} "$root/CMakeLists.txt" "$root"/cmake/*.cmake
    find "$root/src" "$root/tests" -name CMakeLists.txt -print0 | sort -z | xargs -0 cat
  } 2>/dev/null | sha256sum | cut -d' ' -f1
}

# True where packages, torch and configuration are those of this tree.
configured() {
  [[ -f $build/build.ninja && -f $state/configured ]] && python_recorded_is_wanted &&
    [[ $(<"$state/configured") == "$(inputs_hash)" ]] && [[ -z $(packages_missing build) ]]
}

# True where nothing under src/ has changed since the last build; a folder's own time shows files that went away.
built() {
  [[ -x $build/stagecoach && -f $state/built ]] &&
    [[ -z $(find "$root/src" -newer "$state/built" -print -quit) ]]
}

# Everything up to a configured build/.
set_up() {
  configured && return
  packages_install build
  python_choose
  if [[ -f $build/CMakeCache.txt ]] && ! cache_is_of_this_tree; then
    rm -rf "$build/CMakeCache.txt" "$build/CMakeFiles"
  fi
  step "configure build/ (cmake)" cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DSTAGECOACH_COMPUTE=ON -DSTAGECOACH_PYTHON="$(python_recorded)"
  inputs_hash >"$state/configured"
}

# CMake remembers where it found torch and the sources: with another torch, or after a move, it must look again.
cache_is_of_this_tree() {
  grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt" &&
    grep -q "^STAGECOACH_PYTHON:[A-Z]*=$(python_recorded)\$" "$build/CMakeCache.txt"
}

# Builds the given targets in build/.
build_targets() {
  step "build $*" ninja -C "$build" -j "$jobs" "$@"
}

# The program alone. The stamp bears the time at which the build began: an edit made meanwhile is built next time.
build_program() {
  touch "$state/built.next"
  build_targets stagecoach
  mv "$state/built.next" "$state/built"
}
