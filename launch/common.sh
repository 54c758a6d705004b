# What the launch scripts share; sourced, not run.
# shellcheck shell=bash
set -euo pipefail

# Reads --some-name=VALUE into LETTER_SOME_NAME (which the environment may have given), up to a lone --; what follows goes
# to the array `rest`. --dry-run prints commands instead of running them.
parse_flags() { # "KNOWN NAMES" ARGUMENTS
  local known=" $1 "
  shift
  rest=()
  while (($#)); do
    case $1 in
      --help) usage; exit 0 ;;
      --dry-run) LETTER_DRY_RUN=1 ;;
      --spot) export LETTER_SPOT=1 ;;
      --) shift; rest=("$@"); return ;;
      --*=*)
        local name=${1%%=*}
        name=${name#--}
        if [[ $known != *" $name "* ]]; then
          known=${known% }
          echo "$0: error: --$name does not exist; expected${known// / --}, and flags of letter_jax.main behind --" >&2
          exit 2
        fi
        name=${name//-/_}
        printf -v "LETTER_${name^^}" '%s' "${1#*=}" ;;
      *) echo "$0: error: $1; expected --NAME=VALUE, --dry-run, --help, or -- and flags of letter_jax.main" >&2; exit 2 ;;
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
