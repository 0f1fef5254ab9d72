# shellcheck shell=bash
# How the code gets onto the workers, and what a run there needs.

CHECKOUT=$(dirname "$LAUNCH")

# require_code: refuses a TPU_CODE that is neither a git checkout nor URL@COMMIT.
require_code() {
  if [[ $TPU_CODE == checkout ]]; then
    git -C "$CHECKOUT" rev-parse --quiet --verify HEAD >/dev/null ||
      refuse "TPU_CODE: '$CHECKOUT' is no git checkout with a commit; give URL@COMMIT"
  elif ! [[ $TPU_CODE =~ ^.+@[0-9a-f]{7,40}$ ]]; then
    refuse "TPU_CODE: got '$TPU_CODE', wanted checkout or URL@COMMIT with 7 to 40 digits of the commit"
  fi
}

# require_shared WORD...: refuses a run of several hosts that cannot share its checkpoints.
require_shared() {
  local word before=
  for word in "$@"; do
    [[ "$before $word" != "--workdir gs://"* && $word != --workdir=gs://* ]] ||
      refuse "--workdir: a run folder is a path, not gs://; set TPU_SHARED to the bucket and give a relative path: it is mounted, and runs work in it"
    before=$word
  done
  [[ -z $TPU_SHARED ]] || return 0
  if ((TPU_SLICES > 1)) || ! has_one_host "$TPU_TOPOLOGY"; then
    refuse "TPU_SHARED is not set; the hosts of $TPU_TOPOLOGY write one checkpoint together, so give a place that all see"
  fi
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
  ((code)) || on_workers all setup "$TPU_SHARED" "${source[@]}" || code=$?
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

# run_words EXPERIMENT WORD...: puts what worker.sh's `start` takes into the array RUN.
run_words() {
  local experiment=$1 name
  shift
  experiment=${experiment#"$CHECKOUT/"}
  if [[ $TPU_CODE == checkout && ! -f $CHECKOUT/${experiment%%:*} ]]; then
    refuse "experiment: no file '${experiment%%:*}' in '$CHECKOUT'"
  fi
  RUN=()
  for name in $TPU_FORWARD; do [[ -z ${!name-} ]] || RUN+=("$name=${!name}"); done
  RUN+=(-- "$experiment" "$@")
}
