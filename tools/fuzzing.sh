# shellcheck shell=bash disable=SC2154
# Builds the fuzz targets with clang in build-fuzz/, without torch, and gives each its dose. Sourced by ./check.
#
# In:   src/**/x_fuzz.cpp; $long, $filter, $results.
# Out:  $results/fuzz.tsv for the table.

readonly fuzz_build=$root/build-fuzz

fuzz() {
  if ! command -v clang++-19 >/dev/null; then
    say "fuzzing needs clang-19, which is not installed, and --no-setup forbids installing it"
    printf 'fuzz.clang-19 is missing\tfailed\t0\n' >"$results/fuzz.tsv"
    return
  fi
  lock
  if [[ ! -f $fuzz_build/build.ninja ]] ||
    ! grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$fuzz_build/CMakeCache.txt"; then
    rm -rf "$fuzz_build/CMakeCache.txt" "$fuzz_build/CMakeFiles"
    step "configure build-fuzz/ (cmake)" env CC=clang-19 CXX=clang++-19 cmake -S "$root" -B "$fuzz_build" -G Ninja \
      -DCMAKE_BUILD_TYPE=Release -DSTAGECOACH_FUZZ=ON -DSTAGECOACH_COMPUTE=OFF
  fi
  step "build the fuzz targets (clang)" ninja -C "$fuzz_build" -j "$jobs" fuzzers
  unlock
  # The short dose draws the same inputs each time, so that a plain check is repeatable; the long one never does.
  local dose=(--seconds 10 --seed 1)
  [[ -z $long ]] || dose=(--seconds 300 --seed 0)
  python3 "$root/tools/fuzz.py" --build "$fuzz_build" --inputs "$root/tests/fuzz" --jobs "$jobs" --filter "$filter" \
    --out "$results/fuzz.tsv" "${dose[@]}"
}
