#!/usr/bin/env bash
# A run on a Slurm cluster of GPUs: one process for each GPU, joined by what Slurm says of itself.
. "$(dirname "$0")/common.sh"
usage() {
  cat <<'TEXT'
launch/slurm.sh --nodes=N --gpus=GPUS_PER_NODE [--time=24:00:00] [--partition=P] [--account=A] [--python=.venv/bin/python]
                [--dry-run] -- FLAGS OF letter_jax.main
Submits one job. Slurm warns it 120 seconds before it ends it: the run saves, ends with status 143, and is queued again.
TEXT
}
parse_flags 'nodes gpus time partition account python' "$@"
require nodes gpus
((${#rest[@]})) || { echo "$0: error: no flags of letter_jax.main; expected -- --config=... --workdir=..." >&2; exit 2; }
LETTER_PYTHON=${LETTER_PYTHON:-.venv/bin/python}
# shellcheck disable=SC2016 # expanded in the job
again='|| { status=$?; [ $status -ne 143 ] || scontrol requeue "$SLURM_JOB_ID"; exit $status; }'
run sbatch "--nodes=$LETTER_NODES" "--ntasks-per-node=$LETTER_GPUS" "--gpus-per-node=$LETTER_GPUS" "--time=${LETTER_TIME:-24:00:00}" --requeue \
  --open-mode=append --signal=TERM@120 --job-name=letter_jax --output=letter_jax_%j.log \
  ${LETTER_PARTITION:+"--partition=$LETTER_PARTITION"} ${LETTER_ACCOUNT:+"--account=$LETTER_ACCOUNT"} \
  "--wrap=srun $(quoted "$LETTER_PYTHON" -m letter_jax.main --distributed "${rest[@]}") $again"
