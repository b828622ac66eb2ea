#!/usr/bin/env bash
# Builds the named targets in build/, setting the machine up where something is missing. lab/lib/programs.py runs it.
set -u -o pipefail
root=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
source "$root/tools/setup.sh"

lock
set_up
packages_install lab
build_targets "$@"
unlock
