#!/usr/bin/env bash
# A run on TPU slices of a GKE cluster, as a JobSet (launch/jobset.yaml).
. "$(dirname "$0")/common.sh"
usage() {
  cat <<'TEXT'
launch/gke.sh apply|logs|delete FLAGS [-- FLAGS OF letter_jax.main]

  apply    --name --image --accelerator --topology --hosts --chips --claim -- --config=... --workdir=/mnt/letter/...
  logs     --name
  delete   --name

--accelerator is tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, ...; --topology such as 2x4; --hosts and --chips of a
host as GKE lists them for it; --claim a PersistentVolumeClaim that all pods mount at /mnt/letter; --image has this
folder at /letter_jax and its requirements with jax[tpu]. --dry-run prints the manifest.
TEXT
}
action=${1:-}
(($#)) && shift
[[ $action != --help ]] || { usage; exit 0; }
case $action in apply | logs | delete) ;; *) usage >&2; exit 2 ;; esac
parse_flags 'name image accelerator topology hosts chips claim' "$@"
require name
case $action in
  apply)
    require image accelerator topology hosts chips claim
    ((${#rest[@]})) || { echo "$0: error: no flags of letter_jax.main; expected -- --config=... --workdir=..." >&2; exit 2; }
    manifest=$(<"$(dirname "$0")/jobset.yaml")
    flags=''
    for flag in "${rest[@]}"; do
      flag=${flag//\\/\\\\}
      flags+=", \"${flag//\"/\\\"}\""
    done
    for field in NAME IMAGE ACCELERATOR TOPOLOGY HOSTS CHIPS CLAIM; do
      variable=LETTER_$field
      manifest=${manifest//"{{$field}}"/"${!variable}"}
    done
    manifest=${manifest//"{{FLAGS}}"/"$flags"}
    if [[ -n ${LETTER_DRY_RUN:-} ]]; then
      echo "$manifest"
    else
      kubectl apply -f - <<<"$manifest"
    fi ;;
  logs) # of process 0; the others say nothing
    worker="jobset.sigs.k8s.io/jobset-name=$LETTER_NAME,batch.kubernetes.io/job-completion-index=0"
    run kubectl logs --follow "--selector=$worker" ;;
  delete) run kubectl delete jobset "$LETTER_NAME" ;;
esac
