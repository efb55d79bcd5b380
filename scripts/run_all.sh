#!/usr/bin/env bash
# From labelled text to an answer from Triton, in containers: builds the images, trains, exports,
# starts the server with Prometheus and Grafana, and asks it one text. scripts/run_all.sh --help
set -Eeuo pipefail

usage() {
    cat <<'EOF'
usage: scripts/run_all.sh [OPTION…] [-- TRAINING-OPTION…]

Builds the images, trains on the GPU, exports, starts Triton (with Prometheus and
Grafana), waits until it is ready and asks it one text. A stage whose result is
there is skipped, so an interrupted run goes on where it stopped.

  --cpu            no GPU: trains on the CPU and serves the target `cpu`
  --target NAME    what Triton runs: cuda, tensorrt, tensorrt-plan or cpu [cuda; cpu with --cpu]
  --config FILE    training settings [train/configs/demo.yaml]; paths in it are
                   relative to this checkout, and data must lie below data/
  --name NAME      runs/NAME and artifacts/NAME [demo]
  --text TEXT      what to ask at the end
  --force          train and export anew, even where the results are there
  --no-monitoring  Triton alone, without Prometheus and Grafana
  -h, --help       this text

Words after -- go to training: scripts/run_all.sh --name big \
    --config train/configs/bert-base.yaml -- --optim.precision bf16

Needs Docker with Compose 2.24 or newer; with a GPU its driver and the NVIDIA
Container Toolkit. The server stays up; `docker compose down` stops it.
The environment may set MULTITASK_REPOSITORY (the model repository
[./triton_models]) and MULTITASK_BIND (the address of the ports [127.0.0.1]).
Exit status: 0 answered, 1 a stage failed, 2 wrong usage.
EOF
}

say() { printf '== %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
misuse() { printf 'error: %s (see --help)\n' "$*" >&2; exit 2; }

# --- options ---------------------------------------------------------------------------------------

cpu=0 force=0 monitoring=1 target='' name=demo config=train/configs/demo.yaml
text='Hi, my router has been dead since Monday, can Zoë call me at half past six?'
training=()
while (($#)); do
    case $1 in
        --cpu) cpu=1 ;;
        --force) force=1 ;;
        --no-monitoring) monitoring=0 ;;
        --target | --config | --name | --text)
            (($# > 1)) || misuse "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        --) shift; training=("$@"); break ;;
        *) misuse "unknown option: $1" ;;
    esac
    shift
done
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] \
    || misuse "--name is '$name': letters, digits, '.', '_' and '-' are allowed"
((cpu)) && target=${target:-cpu}
target=${target:-cuda}
[[ $target =~ ^(cpu|cuda|tensorrt|tensorrt-plan)$ ]] \
    || misuse "--target is '$target': cuda, tensorrt, tensorrt-plan and cpu are allowed"
((!cpu)) || [[ $target == cpu ]] || misuse "--target $target needs a GPU: leave out --cpu"
[[ -n $text ]] || misuse "--text is empty: give the text to ask"

[[ -f $config ]] || misuse "no file $config: name the training settings with --config"
config=$(realpath "$config")
cd "$(dirname "$0")/.."

repository=${MULTITASK_REPOSITORY:-./triton_models}
run=runs/$name artifact=artifacts/$name
# Read by compose.yaml: the jobs write as the user who runs this.
export MULTITASK_NAME=$name MULTITASK_REPOSITORY=$repository MULTITASK_TARGET=$target
export MULTITASK_UID=${MULTITASK_UID:-$(id -u)} MULTITASK_GID=${MULTITASK_GID:-$(id -g)}

files=(-f compose.yaml)
((!cpu)) || files+=(-f compose.cpu.yaml)
compose() { docker compose "${files[@]}" "$@"; }

stage='the checks'
trap 'printf "error: %s failed; run the same command again to go on from there\n" "$stage" >&2' ERR
begin() { stage=$1; say "$1${2:+: $2}"; }

# --- stages ----------------------------------------------------------------------------------------

check_machine() {
    command -v docker > /dev/null || fail "no program docker: install Docker Engine"
    local version
    version=$(docker compose version --short 2> /dev/null) \
        || fail "no docker compose: install the Compose plugin, 2.24 or newer"
    [[ $(printf '%s\n' 2.24.0 "${version#v}" | sort -V | head -n 1) == 2.24.0 ]] \
        || fail "Docker Compose is $version: 2.24 or newer is needed"
    docker info > /dev/null 2>&1 \
        || fail "no Docker engine answers: start it, or see whether you may use it (docker info)"
    ((cpu)) || nvidia-smi -L > /dev/null 2>&1 \
        || fail "no NVIDIA GPU (nvidia-smi -L): install its driver, or give --cpu"
    # An export there would be refused, and only after the training.
    [[ ! -f $repository/history.jsonl ]] || { ((!force)) && exported; } \
        || fail "versions were published to $repository: train and export by hand, then" \
            "docker compose run --rm publish artifacts/NAME (deploy/README.md); or take another" \
            "repository"
}

# Layers that have not changed come from Docker's cache.
build() { compose build train triton; }

trained() { [[ -f $run/manifest.json ]]; }

train() {
    compose run --rm --volume "$config:/app/config.yaml:ro" train fit --config config.yaml \
        --run.output "$run" --run.overwrite true ${training[@]+"${training[@]}"}
    trained || fail "training ended without $run/manifest.json"
}

# The artifact is newer than its checkpoint, and some version in the repository is this artifact.
exported() {
    [[ -f $artifact/manifest.json && ! $run/manifest.json -nt $artifact/manifest.json ]] || return 1
    local version
    for version in "$repository"/multitask/*/manifest.json; do
        ! cmp -s "$artifact/manifest.json" "$version" || return 0
    done
    return 1
}

export_model() {
    compose run --rm export --checkpoint "$run" --output "$artifact" --repository /models
    exported || fail "export ended without $artifact/manifest.json in $repository"
}

serve() {
    local services=(triton)
    ((!monitoring)) || services+=(prometheus probe grafana)
    if ! compose up --detach --wait --wait-timeout 900 "$@" "${services[@]}"; then
        compose logs --tail 40 triton >&2 || true
        fail "the services did not become ready; Triton's last words stand above"
    fi
}

ask() { compose run --rm -T client "$text"; }

begin 'check' "target $target"
check_machine
mkdir -p data runs artifacts "$repository"

begin 'build' 'images multitask-train and multitask-triton'
build

fresh=()
if ((!force)) && trained; then
    say "train: skipped, $run is there (--force trains anew)"
else
    begin 'train' "$config → $run"
    train
fi
if ((!force)) && exported; then
    say "export: skipped, $artifact is there and in $repository"
else
    begin 'export' "$run → $artifact and $repository"
    export_model
    # A server that is up still holds what was there before.
    fresh=(--force-recreate)
fi

begin 'serve' 'until everything is ready'
serve ${fresh[@]+"${fresh[@]}"}

begin 'ask' "$text"
ask

address=${MULTITASK_BIND:-127.0.0.1}
say "ready: gRPC $address:8001, HTTP http://$address:8000, metrics http://$address:8002/metrics"
((!monitoring)) || say "dashboard http://$address:3000, Prometheus http://$address:9090"
say "stop with: docker compose ${files[*]} down"
