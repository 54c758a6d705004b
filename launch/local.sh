#!/usr/bin/env bash
# N processes on this machine, as a trial of a run of several machines. Each has one CPU device (or --devices).
. "$(dirname "$0")/common.sh"
usage() {
  cat <<'TEXT'
launch/local.sh --processes=N [--devices=1] [--python=.venv/bin/python] [--port=12355] [--dry-run] -- FLAGS OF letter_jax.main
What process 0 says goes to the terminal, what the others say to process_I.log in the working directory.
TEXT
}
parse_flags 'processes devices python port' "$@"
require processes
[[ $LETTER_PROCESSES =~ ^[1-9][0-9]*$ ]] || { echo "$0: error: --processes=$LETTER_PROCESSES; expected a number from 1 on" >&2; exit 2; }
LETTER_PYTHON=${LETTER_PYTHON:-.venv/bin/python} LETTER_PORT=${LETTER_PORT:-12355} LETTER_DEVICES=${LETTER_DEVICES:-1}

pids=()
# What ends this script ends them, too, and waits until they have saved.
trap 'kill "${pids[@]}" 2>/dev/null || true; wait' EXIT
trap 'exit 143' TERM INT
for ((index = 0; index < LETTER_PROCESSES; index++)); do
  command=(env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$LETTER_DEVICES" "$LETTER_PYTHON" -m letter_jax.main "${rest[@]}"
           "--coordinator=localhost:$LETTER_PORT" "--processes=$LETTER_PROCESSES" "--process=$index")
  if [[ -n ${LETTER_DRY_RUN:-} ]]; then
    run "${command[@]}"
  elif ((index == 0)); then
    "${command[@]}" & pids+=($!)
  else
    "${command[@]}" >"process_$index.log" 2>&1 & pids+=($!)
  fi
done
status=0
for pid in ${pids[@]+"${pids[@]}"}; do
  wait "$pid" || status=$?
done
exit "$status"
