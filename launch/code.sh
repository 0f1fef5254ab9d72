# shellcheck shell=bash
# How the code gets onto the workers, and what a run there needs.

CHECKOUT=$(dirname "$LAUNCH")
COMMANDS="train evaluate score table generate draw convert verify data curate plan demo" # of `xgenmm`

# require_code: refuses a TPU_CODE that is neither a git checkout nor URL@COMMIT.
require_code() {
  if [[ $TPU_CODE == checkout ]]; then
    git -C "$CHECKOUT" rev-parse --quiet --verify HEAD >/dev/null ||
      refuse "TPU_CODE: '$CHECKOUT' is no git checkout with a commit; give URL@COMMIT"
  elif ! [[ $TPU_CODE =~ ^.+@[0-9a-f]{7,40}$ ]]; then
    refuse "TPU_CODE: got '$TPU_CODE', wanted checkout or URL@COMMIT with 7 to 40 digits of the commit"
  fi
}

# require_shared COMMAND WORD...: refuses a run of several hosts that cannot share what it writes.
require_shared() {
  local word before=
  [[ -z $TPU_SHARED ]] || return 0
  for word in "$@"; do
    case "$1 $before $word" in
      train\ --workdir\ gs://* | train*\ --workdir=gs://*) return ;;
      train\ *) ;;
      *\ gs://*) return ;;
    esac
    before=$word
  done
  if ((TPU_SLICES > 1)) || ! has_one_host "$TPU_TOPOLOGY"; then
    refuse "TPU_SHARED is not set; the hosts of $TPU_TOPOLOGY write one checkpoint together, so give a place that all see (or --workdir gs://BUCKET/FOLDER)"
  fi
}

# require_data: refuses a TPU_DATA that cannot be mounted beside TPU_SHARED.
require_data() {
  [[ -z $TPU_DATA || $TPU_DATA == gs://* ]] || refuse "TPU_DATA: got '$TPU_DATA', wanted gs://BUCKET[/FOLDER] or nothing"
  [[ -z $TPU_DATA || -n $TPU_SHARED ]] || refuse "TPU_DATA is mounted in TPU_SHARED, which is not set"
}

# set_up_workers: copies worker.sh and, unless it is cloned, the code; then worker.sh does the rest.
set_up_workers() {
  local folder code=0 source=(checkout)
  folder=$(mktemp -d)
  cp "$LAUNCH/worker.sh" "$folder/$WORKER_SCRIPT"
  local files=("$folder/$WORKER_SCRIPT")
  if [[ $TPU_CODE == checkout ]]; then
    files+=("$folder/xgenmm_code.tar.gz")
    [[ -n $DRY_RUN ]] || pack_checkout "$folder/xgenmm_code.tar.gz"
  else
    source=("${TPU_CODE%@*}" "${TPU_CODE##*@}")
  fi
  copy_to_workers "${files[@]}" || code=$?
  rm -rf "$folder"
  ((code)) || on_workers all setup "$TPU_SHARED" "$TPU_DATA" "${source[@]}" || code=$?
  return "$code"
}

# pack_checkout FILE: the files that git knows or does not ignore, as they are now, over the last commit, so that a run
# folder on the worker names that commit, "-dirty" where files differ.
pack_checkout() {
  local folder
  folder=$(mktemp -d)
  git clone --quiet --depth 1 "file://$(git -C "$CHECKOUT" rev-parse --show-toplevel)" "$folder/code"
  git -C "$folder/code" ls-files -z | (cd "$folder/code" && xargs -0 rm -f)
  (
    cd "$CHECKOUT" || exit
    git ls-files -z --cached --others --exclude-standard |
      while IFS= read -r -d '' file; do [[ ! -e $file && ! -L $file ]] || printf '%s\0' "$file"; done |
      tar --create --null --files-from=-
  ) | tar --extract --directory="$folder/code"
  tar --create --gzip --file="$1" --directory="$folder/code" .
  rm -rf "$folder"
}

# command_words WORD...: puts into the array COMMAND what follows `xgenmm`: these words, or `train` before an experiment.
# A run trains with the settings for the pod, unless --for says others.
command_words() {
  local word experiment
  COMMAND=()
  [[ " $COMMANDS " == *" $1 "* ]] || COMMAND=(train)
  for word in "$@"; do
    [[ ${word%%:*} != *.py ]] || word=${word#"$CHECKOUT/"}
    COMMAND+=("$word")
  done
  [[ ${COMMAND[0]} == train ]] || return 0
  experiment=${COMMAND[1]-}
  [[ -n $experiment && $experiment != -* ]] || refuse "train: got no experiment; give a file, as in experiments/stage1.py"
  if [[ $TPU_CODE == checkout && ! -f $CHECKOUT/${experiment%%:*} ]]; then
    refuse "experiment: no file '${experiment%%:*}' in '$CHECKOUT'"
  fi
  for_this_pod "${COMMAND[@]:2}" || COMMAND=(train "$experiment" --for "$(pod_label)" "${COMMAND[@]:2}")
}

# pod_label: the pod as `xgenmm train --for` names it: v5e:16x16, 2xv5e:16x16.
pod_label() { if ((TPU_SLICES > 1)); then echo "${TPU_SLICES}x$TPU_TOPOLOGY"; else echo "$TPU_TOPOLOGY"; fi; }

# for_this_pod WORD...: whether --for is among the words; refuses one of another pod.
for_this_pod() {
  local word before='' value=
  for word in "$@"; do
    [[ $before != --for ]] || value=$word
    [[ $word != --for=* ]] || value=${word#--for=}
    before=$word
  done
  [[ -n $value ]] || return 1
  [[ $value == none || $value == "$(pod_label)" ]] ||
    refuse "--for: got $value, but the pod is $(pod_label) (TPU_TOPOLOGY, TPU_SLICES); leave --for away, or give none"
}

# run_words: puts what worker.sh's `start` takes into the array RUN, from COMMAND.
run_words() {
  local name
  RUN=()
  for name in $TPU_FORWARD; do [[ -z ${!name-} ]] || RUN+=("$name=${!name}"); done
  RUN+=(-- "${COMMAND[@]}")
}
