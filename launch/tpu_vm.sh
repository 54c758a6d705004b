#!/usr/bin/env bash
# A TPU VM slice from its creation to its end, spot capacity included.
. "$(dirname "$0")/common.sh"
usage() {
  cat <<'TEXT'
launch/tpu_vm.sh create|wait|setup|run|logs|delete FLAGS [-- FLAGS OF letter_jax.main]

  create   asks for the slice as a queued resource      --name --project --zone --type [--version] [--spot]
  wait     until it is there                            --name --project --zone
  setup    copies this folder, installs, mounts NFS     --name --project --zone [--nfs=HOST:/SHARE]
  run      starts the program on every worker           --name --project --zone -- --config=... --workdir=...
  logs     follows what worker 0 says                   --name --project --zone
  delete   gives everything back                        --name --project --zone

--type is v5litepod-8, v5p-8, v6e-8, v4-8, ...; --workdir must be on a disk that all workers see (--nfs is /mnt/letter).
A preempted run is resumed by create, wait, setup and run with the same flags.
TEXT
}
action=${1:-}
(($#)) && shift
[[ $action != --help ]] || { usage; exit 0; }
case $action in create | wait | setup | run | logs | delete) ;; *) usage >&2; exit 2 ;; esac
parse_flags 'name project zone type version spot nfs' "$@"
require name project zone
where=("--project=$LETTER_PROJECT" "--zone=$LETTER_ZONE")
on_workers() { # WORKER COMMAND
  run gcloud compute tpus tpu-vm ssh "$LETTER_NAME" "${where[@]}" "--worker=$1" "--command=$2"
}

case $action in
  create)
    require type
    case $LETTER_TYPE in
      v4-*) default=tpu-ubuntu2204-base ;;
      v5litepod-*) default=v2-alpha-tpuv5-lite ;;
      v5p-*) default=v2-alpha-tpuv5 ;;
      v6e-*) default=v2-alpha-tpuv6e ;;
      *) echo "$0: error: --type=$LETTER_TYPE; expected v4-N, v5litepod-N (v5e), v5p-N or v6e-N" >&2; exit 2 ;;
    esac
    spot=()
    [[ ${LETTER_SPOT:-0} == 0 ]] || spot=(--spot)
    run gcloud compute tpus queued-resources create "$LETTER_NAME" "--node-id=$LETTER_NAME" "${where[@]}" \
      "--accelerator-type=$LETTER_TYPE" "--runtime-version=${LETTER_VERSION:-$default}" ${spot[@]+"${spot[@]}"} ;;
  wait)
    if [[ -n ${LETTER_DRY_RUN:-} ]]; then
      run gcloud compute tpus queued-resources describe "$LETTER_NAME" "${where[@]}" '--format=value(state.state)'
      exit 0
    fi
    while state=$(gcloud compute tpus queued-resources describe "$LETTER_NAME" "${where[@]}" '--format=value(state.state)'); do
      echo "$LETTER_NAME: $state"
      case $state in
        ACTIVE) exit 0 ;;
        FAILED | SUSPENDED) echo "$0: error: $LETTER_NAME is $state; delete it and create it again" >&2; exit 1 ;;
      esac
      sleep 20
    done
    exit 1 ;;
  setup)
    archive=$(mktemp -u --suffix=.tar.gz)
    run tar --exclude=.git --exclude=.venv --exclude=workdirs --exclude=runs -czf "$archive" -C "$(dirname "$0")/.." .
    run gcloud compute tpus tpu-vm scp "$archive" "$LETTER_NAME:letter_jax.tar.gz" "${where[@]}" --worker=all
    run rm -f "$archive"
    install='mkdir -p letter_jax && tar -xzf letter_jax.tar.gz -C letter_jax && cd letter_jax && '
    # The system's Python is 3.10; uv brings a newer one.
    # shellcheck disable=SC2016 # the remote shell's HOME
    install+='curl -LsSf https://astral.sh/uv/install.sh | sh && PATH=$HOME/.local/bin:$PATH && '
    install+='uv venv --clear --python=3.12 .venv && uv pip install --python=.venv "jax[tpu]" -r requirements.txt'
    on_workers all "$install"
    if [[ -n ${LETTER_NFS:-} ]]; then
      on_workers all "sudo apt-get install -qy nfs-common && sudo mkdir -p /mnt/letter && sudo mount $(quoted "$LETTER_NFS") /mnt/letter && sudo chmod 777 /mnt/letter"
    fi ;;
  run)
    ((${#rest[@]})) || { echo "$0: error: no flags of letter_jax.main; expected -- --config=... --workdir=..." >&2; exit 2; }
    on_workers all "cd letter_jax && (nohup .venv/bin/python -m letter_jax.main --distributed $(quoted "${rest[@]}") > run.log 2>&1 < /dev/null &)" ;;
  logs) on_workers 0 'tail -n 100 -F letter_jax/run.log' ;;
  delete) run gcloud compute tpus queued-resources delete "$LETTER_NAME" "${where[@]}" --force --quiet ;;
esac
