#!/bin/bash
# Gathers the libraries of NVIDIA's packages in one folder, where the loader finds them.
#   docker/link-cuda.sh /opt/vault-ml
set -euo pipefail
environment=$1
site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$environment/lib/cuda"
find "$site/nvidia" -name '*.so.*' -exec ln -s {} "$environment/lib/cuda/" \;
# Headers and static libraries are for compilers.
find "$site/nvidia" \( -path '*/include/*' -o -name '*.a' \) -delete
[ -e "$environment/lib/cuda/libcudnn.so.9" ] || { echo "link-cuda: no cuDNN in $site/nvidia" >&2; exit 1; }
