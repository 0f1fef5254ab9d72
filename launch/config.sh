# shellcheck shell=bash disable=SC2034
# The one file to edit. A variable of the same name in the environment wins: TPU_NAME=other launch/status.sh

# ---------------------------------------------------------------- what and where
TPU_PROJECT=${TPU_PROJECT-}           # Google Cloud project
TPU_ZONE=${TPU_ZONE-}                 # for example us-west4-a; `gcloud compute tpus locations list`
TPU_NAME=${TPU_NAME-}                 # of the queued resource and its nodes: a-z, 0-9 and -
TPU_TOPOLOGY=${TPU_TOPOLOGY-v5e:4x4}  # of one slice, as `xgenmm plan --topology` takes it
TPU_SLICES=${TPU_SLICES-1}            # slices of that shape
TPU_CAPACITY=${TPU_CAPACITY-spot}     # spot, reserved or on-demand
TPU_RUNTIME=${TPU_RUNTIME-}           # image of the workers; empty: the usual one of the chip
TPU_CREATE_FLAGS=${TPU_CREATE_FLAGS-} # more words for `queued-resources create`: --service-account=... --network=...
TPU_SSH_FLAGS=${TPU_SSH_FLAGS-}       # more words for `tpu-vm ssh` and `scp`: --internal-ip, --ssh-key-file=...

# ---------------------------------------------------------------- code and files
# checkout: this one, changes that are not committed included. Or URL@COMMIT, which every worker clones.
TPU_CODE=${TPU_CODE-checkout}
# Where runs/, data/ and weights/ lie, for all workers alike: gs://BUCKET[/FOLDER] (hierarchical namespace),
# HOST:/EXPORT (NFS), or a folder that is mounted already. Empty: the worker's own disk, for one host only.
TPU_SHARED=${TPU_SHARED-}
# gs://BUCKET[/FOLDER] whose files do not change: becomes data/ of TPU_SHARED, mounted read-only, its names kept for good.
# Empty: data/ is what lies there, asked for at every opening, as runs are.
TPU_DATA=${TPU_DATA-}
# Names of variables of your environment that a run shall have too.
TPU_FORWARD=${TPU_FORWARD-LIBTPU_INIT_ARGS JAX_COMPILATION_CACHE_DIR}

# ---------------------------------------------------------------- patience
TPU_TRIES=${TPU_TRIES-5}                # of what fails for the network's sake
TPU_BACKOFF_S=${TPU_BACKOFF_S-5}        # before the second try; doubles with each one
TPU_POLL_S=${TPU_POLL_S-60}             # between two looks at the state
TPU_STOP_WAIT_S=${TPU_STOP_WAIT_S-600}  # for the checkpoint after stop.sh
TPU_MAX_FAILURES=${TPU_MAX_FAILURES-3}  # of run or pod in a row, before resume.sh gives up
TPU_SILENCE_S=${TPU_SILENCE_S-86400}    # that resume.sh waits while Cloud or a worker does not answer
TPU_STEADY_S=${TPU_STEADY_S-3600}       # a run that lasts this long forgives failures before it; not one that hangs
