# What the launch scripts share; sourced, not run.
# shellcheck shell=bash
set -euo pipefail

# Reads --some-name=VALUE into LETTER_SOME_NAME (which the environment may have given), up to the first argument that is no
# flag or a lone --; the rest goes to the array `rest`. --dry-run prints commands instead of running them.
parse_flags() {
  rest=()
  while (($#)); do
    case $1 in
      --help) usage; exit 0 ;;
      --dry-run) LETTER_DRY_RUN=1 ;;
      --) shift; rest=("$@"); return ;;
      --*=*)
        local name=${1%%=*}
        name=${name#--}
        name=${name//-/_}
        printf -v "LETTER_${name^^}" '%s' "${1#*=}" ;;
      --*) echo "$0: error: $1 has no value; expected $1=VALUE" >&2; exit 2 ;;
      *) rest=("$@"); return ;;
    esac
    shift
  done
}

# Refuses, by name, what is not set.
require() {
  local flag variable
  for flag in "$@"; do
    variable=LETTER_${flag^^}
    if [[ -z ${!variable:-} ]]; then
      echo "$0: error: --$flag is not set; expected --$flag=VALUE, or $variable in the environment" >&2
      exit 2
    fi
  done
}

# Runs a command, or prints it so that it can be pasted.
run() {
  if [[ -n ${LETTER_DRY_RUN:-} ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

# Words as one string that a remote shell splits into the same words again.
quoted() {
  local words=''
  (($#)) && printf -v words '%q ' "$@"
  echo "${words% }"
}
