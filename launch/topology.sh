# shellcheck shell=bash
# The one translation from the names of `xgenmm plan` (chip:AxB, chip:AxBxC) to those of Google Cloud.
#
# v5e and v6e slices have one shape a size. Of v5p, `--accelerator-type` gives the shape below a size; of v4, gcloud
# takes any shape as --type and --topology.

V2D_SHAPES="1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"
V5P_SHAPES="2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16 16x16x24"

# accelerator_type TOPOLOGY: "v5e:16x16" is "v5litepod-256", "v5p:4x4x8" is "v5p-256" (TensorCores, two a chip).
accelerator_type() {
  local chip=${1%%:*} shape=${1#*:} chips
  _check_shape "$1" "$chip" "$shape"
  chips=$(chip_count "$1")
  case $chip in
    v5e) echo "v5litepod-$chips" ;;
    v6e) echo "v6e-$chips" ;;
    *) echo "$chip-$((2 * chips))" ;;
  esac
}

# accelerator_flags TOPOLOGY: what `gcloud compute tpus queued-resources create` takes, a word a line.
accelerator_flags() {
  local type
  type=$(accelerator_type "$1")
  case $1 in
    v4:*) printf '%s\n' --type=v4 "--topology=${1#*:}" ;;
    *) echo "--accelerator-type=$type" ;;
  esac
}

# runtime_version TOPOLOGY: the image that Cloud's documentation names for JAX on the chip.
runtime_version() {
  case $1 in
    v4:*) echo tpu-ubuntu2204-base ;;
    v5e:*) echo v2-alpha-tpuv5-lite ;;
    v5p:*) echo v2-alpha-tpuv5 ;;
    v6e:*) echo v2-alpha-tpuv6e ;;
  esac
}

# chip_count TOPOLOGY: of one slice.
chip_count() {
  local side chips=1 sides
  IFS=x read -ra sides <<<"${1#*:}"
  for side in "${sides[@]}"; do chips=$((chips * side)); done
  echo "$chips"
}

# has_one_host TOPOLOGY: whether one worker holds the slice. Up to 8 chips of v5e and v6e share a host, 4 of v4 and v5p.
has_one_host() {
  case $1 in
    v5e:* | v6e:*) (($(chip_count "$1") <= 8)) ;;
    *) (($(chip_count "$1") <= 4)) ;;
  esac
}

_check_shape() {
  local shapes
  case $2 in
    v5e | v6e) shapes=$V2D_SHAPES ;;
    v5p) shapes=$V5P_SHAPES ;;
    v4) shapes= ;;
    tpu7x) refuse "TPU_TOPOLOGY: Cloud's TPU API has no tpu7x; use GKE, as docs/launch.md says" ;;
    *) refuse "TPU_TOPOLOGY: got '$1', wanted CHIP:AxB or CHIP:AxBxC of v4, v5e, v5p or v6e, as in v5e:16x16" ;;
  esac
  if [[ $2 == v4 ]]; then
    [[ $3 =~ ^[1-9][0-9]*x[1-9][0-9]*x[1-9][0-9]*$ ]] || refuse "TPU_TOPOLOGY: got '$1', wanted three sides, as in v4:4x4x4"
  elif [[ " $shapes " != *" $3 "* ]]; then
    refuse "TPU_TOPOLOGY: got '$1', a $2 slice has one of the shapes $shapes"
  fi
}
