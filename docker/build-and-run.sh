#!/usr/bin/env bash
# What run-cpu.sh and run-gpu.sh do. Needs Docker (or DOCKER=podman); says what is missing.
#   docker/build-and-run.sh cpu|gpu [words for vault-ml]
# MODELS= builds without YOLOv3's weights (248 MB), with yolov3-tiny alone.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1
shift
docker=${DOCKER:-docker}

missing() {
  echo "$0: $1" >&2
  exit 2
}

command -v "$docker" > /dev/null || missing "'$docker' was not found. Install Docker (https://docs.docker.com/engine/install/), or name another: DOCKER=podman"
"$docker" info > /dev/null 2>&1 || missing "'$docker info' fails: is the daemon running, and may $(id -un) use it? Try: sudo systemctl start docker; sudo usermod -aG docker $(id -un)"

image=vault-ml file=docker/Dockerfile run=()
if [ "$kind" = gpu ]; then
  image=vault-ml-gpu file=docker/Dockerfile-gpu run=(--gpus all)
  command -v nvidia-smi > /dev/null || missing "'nvidia-smi' was not found. Install the NVIDIA driver of this machine's GPU first"
  nvidia-smi -L > /dev/null 2>&1 || missing "'nvidia-smi' finds no GPU; after installing or updating a driver, start the machine anew"
  command -v nvidia-ctk > /dev/null || command -v nvidia-container-cli > /dev/null || missing "the NVIDIA Container Toolkit was not found. Install it (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html), then: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
fi

build=(--file "$file" --tag "$image")
[ -z "${MODELS+set}" ] || build+=(--build-arg "MODELS=$MODELS")
revision=$(git rev-parse HEAD 2> /dev/null) && build+=(--build-arg "REVISION=$revision")
"$docker" build "${build[@]}" .

# The worker's settings that this shell has set, by name, so that no value is on a command line.
if [ -n "${ENV_FILE:-}" ]; then
  run+=(--env-file "$ENV_FILE")
fi
while read -r name; do
  [ -z "${!name:-}" ] || run+=(--env "$name")
done < docker/variables.txt

exec "$docker" run --rm --init --name "$image" --read-only --tmpfs /tmp:size=4g,mode=1777 \
  --cap-drop ALL --security-opt no-new-privileges --publish 127.0.0.1:8080:8080 \
  "${run[@]}" "$image" "$@"
