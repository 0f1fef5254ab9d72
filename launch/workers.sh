# shellcheck shell=bash
# Running worker.sh on the workers of a pod.
#
# gcloud's exit code says little about several workers: it is that of the first that failed, and with a list of workers
# it can be 0 although one was not reached. So a worker ends its answer with "::launch SLICE.WORKER exit CODE", and who
# did not is asked again.

WORKER_SCRIPT=xgenmm_worker.sh # worker.sh in the home of a worker

# on_workers WORKERS WORD...: `worker.sh WORD...` on all slices at once. WORKERS: all, or an index in each slice.
# Gives the exit code of the first slice that failed; says which workers did.
on_workers() { each_slice on_slice "$@"; }

# copy_to_workers FILE...: into the home of every worker.
copy_to_workers() { each_slice _copy_to_slice "$@"; }

# each_slice FUNCTION WORD...: calls FUNCTION SLICE WORD... for all slices at once.
each_slice() {
  local slice pid slice_code code=0 pids=()
  if ((TPU_SLICES == 1)); then
    "$1" 0 "${@:2}"
    return
  fi
  for ((slice = 0; slice < TPU_SLICES; slice++)); do
    set -m # a process group each, so that Ctrl-C ends gcloud and ssh too
    "$1" "$slice" "${@:2}" &
    pids+=($!)
    set +m
    [[ -z $DRY_RUN ]] || wait "$!" # printed in order
  done
  trap 'kill -TERM -- "${pids[@]/#/-}" 2>/dev/null; exit 130' INT TERM
  for pid in "${pids[@]}"; do
    slice_code=0
    wait "$pid" || slice_code=$?
    ((code)) || code=$slice_code
  done
  trap - INT TERM
  return "$code"
}

# on_slice SLICE WORKERS WORD...: `worker.sh WORD...` on one slice.
on_slice() {
  local slice=$1 workers=$2 pending=$2 node command flags answers code try
  shift 2
  node=$(node_name "$slice")
  command=$(quoted bash "$WORKER_SCRIPT" "$slice" "$@")
  read -ra flags <<<"$TPU_SSH_FLAGS"
  if [[ -n $DRY_RUN ]]; then
    cloud tpu-vm ssh "$node" "--worker=$workers" "--command=$command" "${flags[@]}"
    return
  fi
  [[ $workers != all ]] || workers=$(worker_indices "$node") || return
  answers=$(mktemp)
  for ((try = 1; try <= TPU_TRIES; try++)); do
    if cloud tpu-vm ssh "$node" "--worker=$pending" "--command=$command" "${flags[@]}" |
      tee -a "$answers" | sed -u '/^::launch /d'; then code=0; else code=${PIPESTATUS[0]}; fi
    pending=$(_unanswered "$answers" "$slice" "$workers")
    [[ -n $pending ]] || break
    # Not one answered, and it was neither ssh nor silence: gcloud itself refused (rights, quota, no such node).
    if [[ ! -s $answers ]] && ((code != 0 && code != 255)); then break; fi
    ((try == TPU_TRIES)) && break
    say "$node: no answer of worker $pending (try $try of $TPU_TRIES, gcloud's exit code $code), trying again"
    back_off "$try"
  done
  _verdict "$answers" "$slice" "$workers" "$node" "$code"
}

# worker_indices NODE: "0,1,2,3" of a slice with four workers.
worker_indices() {
  local count
  count=$(described 'value(networkEndpoints.len())' tpu-vm "$1") || return
  if ! [[ $count =~ ^[1-9][0-9]*$ ]]; then
    say "node '$1' has no workers (got '$count'); launch/status.sh shows its state"
    return 1
  fi
  seq -s, 0 "$((count - 1))"
}

_copy_to_slice() {
  local node flags
  node=$(node_name "$1")
  read -ra flags <<<"$TPU_SSH_FLAGS"
  patiently cloud tpu-vm scp "${@:2}" "$node:." --worker=all "${flags[@]}"
}

# _answer FILE SLICE WORKER: the exit code that a worker told last, or nothing.
_answer() { sed -n "s/^::launch $2\.$3 exit \([0-9]*\)\$/\1/p" "$1" | tail -n 1; }

# _unanswered FILE SLICE WORKERS: those of the list that told none.
_unanswered() {
  local worker missing=
  for worker in ${3//,/ }; do [[ -n $(_answer "$1" "$2" "$worker") ]] || missing+=",$worker"; done
  echo "${missing#,}"
}

# _verdict FILE SLICE WORKERS NODE CODE: names the workers that failed; the exit code of the first of them.
_verdict() {
  local worker answer first=0
  for worker in ${3//,/ }; do
    answer=$(_answer "$1" "$2" "$worker")
    if [[ -z $answer ]]; then
      say "$4: worker $worker did not answer (gcloud's exit code $5)"
      answer=$(($5 ? $5 : 255))
    elif ((answer)); then
      say "$4: worker $worker failed with exit code $answer"
    fi
    ((first)) || first=$answer
  done
  rm -f "$1"
  return "$first"
}
