#!/usr/bin/env bash
# Builds an image without Docker and runs the demo in it: as a user that is not root, on a root that
# cannot be written, with no network but loopback.
#   docker/try.sh [docker/Dockerfile]
# Needs root, and of Debian's packages: buildah debootstrap util-linux iproute2. The base is made by
# debootstrap from MIRROR, so no image registry is asked. CA names certificates to trust besides the
# usual ones, and PIP_CONF a configuration of pip, where the package index needs them.
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-docker/Dockerfile}
mirror=${MIRROR:-http://deb.debian.org/debian}
base=docker.io/library/debian:bookworm-slim
image=localhost/vault-ml-try
work=$(mktemp -d)
export BUILDAH_ISOLATION=chroot
trap 'buildah rm "${container:-none}" > /dev/null 2>&1 || true; rm -rf "$work"' EXIT

if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
  debootstrap --variant=minbase bookworm "$work/root" "$mirror" > "$work/debootstrap.log"
  rm -rf "$work"/root/var/lib/apt/lists/* "$work"/root/var/cache/apt/archives/*.deb
  if [ -z "${MIRROR:-}" ]; then
    echo "deb http://deb.debian.org/debian-security bookworm-security main" >> "$work/root/etc/apt/sources.list"
  fi
  empty=$(buildah from scratch)
  buildah add --quiet "$empty" "$work/root" /
  buildah commit --quiet --rm "$empty" "$base"
fi

volumes=()
[ -z "${CA:-}" ] || volumes+=(--volume "$CA:/run/machine-ca.crt:ro")
[ -z "${PIP_CONF:-}" ] || volumes+=(--volume "$PIP_CONF:/etc/pip.conf:ro")
buildah bud --format docker --layers --pull-never "${volumes[@]}" \
  --build-arg MODELS= --file "$file" --tag "$image" .
container=$(buildah from --pull-never "$image")
root=$(buildah mount "$container")
echo "try: $(du -xsm "$root" | cut -f1) MB; running the demo on it"

# shellcheck disable=SC2016  # expanded by the inner shell
unshare --mount --pid --fork --net --ipc bash -euc '
  root=$1
  ip link set lo up
  mount --bind "$root" "$root"
  mount -o remount,ro,bind "$root"
  mount -t tmpfs -o size=2g,mode=1777 tmpfs "$root/tmp"
  mount -t proc proc "$root/proc"
  mount -t tmpfs -o size=1m tmpfs "$root/dev"
  for device in null zero urandom random full; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  exec chroot --userspec=65532:65532 "$root" /usr/bin/env -i \
    PATH=/opt/vault-ml/bin:/usr/bin:/bin HOME=/tmp MODEL_DIR=/models CACHE_DIR=/tmp/vault-ml \
    LD_LIBRARY_PATH=/opt/vault-ml/lib/cuda PYTHONDONTWRITEBYTECODE=1 \
    sh -euc "
      cd /tmp
      test \$(id -u) = 65532
      if touch /opt/probe 2> /dev/null; then echo the root can be written; exit 1; fi
      vault-ml demo --once
    "' bash "$root"
echo "try: the demo ran"
