# shellcheck shell=bash disable=SC2154
# How set-up speaks: one line a step with its time, a progress line meanwhile, the log's end where a step fails.
# Sourced by tools/setup.sh, which sets $state and $log.

ticker=

say() { printf '%s\n' "$*" >&2; }

die() {
  say "stagecoach: $*"
  exit 1
}

# Two set-ups in one tree would write the same files. Descriptor 9 holds the lock until `unlock` or the end.
lock() {
  mkdir -p "$state"
  exec 9>"$state/lock"
  if ! flock -n 9; then
    say "another set-up is at work in this folder; waiting for it (Ctrl-C to give up)"
    flock 9
  fi
  trap on_stop INT TERM
  trap ticker_stop EXIT
}

# Before the program starts: it would keep the descriptor, and with it the lock, for its whole life.
unlock() {
  exec 9>&-
  trap - INT TERM EXIT
}

on_stop() {
  ticker_stop
  say ""
  say "stopped; the next run goes on from here"
  exit 130
}

# attempt WHAT COMMAND…: runs the command with its output in the log, says how long it took, returns its status.
attempt() {
  local what=$1 began=$SECONDS rc=0 verdict='done in'
  shift
  printf '\n== %s: %s\n' "$(date -Is)" "$*" >>"$log"
  ticker_start "$what"
  "$@" >>"$log" 2>&1 9>&- </dev/null || rc=$?
  ticker_stop
  ((rc == 130 || rc == 143)) && on_stop
  ((rc == 0)) || verdict='failed after'
  say "$what: $verdict $((SECONDS - began)) s"
  return $rc
}

# As attempt; where the command fails, shows the end of what it wrote and exits.
step() {
  attempt "$@" && return
  say "The last lines of $log:"
  # shellcheck disable=SC2016
  sed -n '/^== /h; //!H; ${x;p}' "$log" | tail -n 30 >&2
  exit 1
}

# On a terminal one line that is rewritten every second; elsewhere a line now and then, so that a log stays short.
ticker_start() {
  local what=$1 began=$SECONDS period=20 start='' end='\n'
  [[ -t 2 ]] && period=1 start='\r\033[K' end=''
  (
    trap - INT TERM EXIT
    while sleep "$period" >/dev/null 2>&1; do
      printf "$start%s: %s%s s$end" "$what" "$(ninja_progress)" $((SECONDS - began)) >&2
    done
  ) 9>&- &
  ticker=$!
}

ticker_stop() {
  [[ -n $ticker ]] || return 0
  kill "$ticker" 2>/dev/null
  wait "$ticker" 2>/dev/null
  ticker=
  [[ -t 2 ]] && printf '\r\033[K' >&2
  return 0
}

# "23 of 140 files, " from ninja's last line in the log, nothing where the step is not ninja's.
ninja_progress() {
  tail -n 40 "$log" | sed -n '/^== /h; s/^\[\([0-9]*\)\/\([0-9]*\)\].*/\1 of \2 files, /p' | tail -n 1 | tr -d '\n'
}
