# shellcheck shell=bash disable=SC2154
# Distribution packages: which are missing, and their installation. Sourced by tools/setup.sh.

# The names in one group of tools/packages.txt.
packages_listed() {
  sed -n "/^\[$1\]/,/^\[/{/^[a-z]/s/[[:space:]].*//p}" "$root/tools/packages.txt"
}

# The listed packages that are not installed. A python3 of the user's own on PATH that makes environments will do.
packages_missing() {
  [[ ${STAGECOACH_PACKAGES:-} == own ]] && return
  local listed installed
  listed=$(packages_listed "$1")
  # shellcheck disable=SC2086,SC2016  # one word a package; dpkg's own ${…}
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $listed 2>/dev/null | sed -n 's/^installed //p')
  local missing
  missing=$(comm -23 <(sort <<<"$listed") <(sort <<<"$installed"))
  if grep -q '^python3' <<<"$missing" && python3 -c 'import venv, ensurepip' 2>/dev/null; then
    missing=$(grep -v '^python3' <<<"$missing")
  fi
  [[ -z $missing ]] || echo "$missing"
}

packages_install() {
  [[ ${STAGECOACH_PACKAGES:-} == own ]] && return
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "The set-up can install packages on Debian 12 and Ubuntu 24.04 only. Here, please install what these hold:"
    say "  $(packages_listed "$1" | paste -sd' ')"
    die "then run this again with STAGECOACH_PACKAGES=own, and it goes on from there."
  fi
  local missing as_root=()
  missing=$(packages_missing "$1")
  [[ -n $missing ]] || return 0
  say "these Debian packages are missing and will be installed: $(paste -sd' ' <<<"$missing")"
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "that needs root, and there is no sudo. As root: apt-get install $(paste -sd' ' <<<"$missing")"
    sudo -v || die "that needs root. As root: apt-get install $(paste -sd' ' <<<"$missing")"
    as_root=(sudo)
  fi
  as_root+=(env DEBIAN_FRONTEND=noninteractive)
  # An installation that was cut off leaves packages half configured, and apt refuses everything until they are whole.
  if [[ -n $(dpkg --audit 2>/dev/null) ]]; then
    step "finish an interrupted installation (dpkg)" "${as_root[@]}" dpkg --configure -a
  fi
  local install=(apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300)
  # The lists may not know these names yet, or name files that the mirror has replaced since.
  # shellcheck disable=SC2086  # one word a package
  if ! apt-get install -s --no-install-recommends $missing >>"$log" 2>&1 ||
    ! attempt "download packages (apt-get)" "${as_root[@]}" "${install[@]}" --download-only $missing; then
    step "refresh the package lists (apt-get update)" "${as_root[@]}" apt-get update
  fi
  # shellcheck disable=SC2086
  step "install packages (apt-get)" "${as_root[@]}" "${install[@]}" $missing
}
