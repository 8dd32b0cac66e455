#!/bin/bash
# Takes out of an environment what a worker never reads, and makes its bytecode.
#   docker/slim.sh /opt/vault-ml
# Each line says what goes; docs/howto/docker.md lists what is left, by size.
set -euo pipefail
environment=$1
site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cd "$site"
# Tests of numpy, scipy and onnx, and C headers for extensions of theirs.
rm -rf numpy/tests numpy/*/tests numpy/*/*/tests onnx/test onnx/backend/test numpy/_core/include
rm -rf scipy/*/tests scipy/*/*/tests
find onnx \( -name '*.h' -o -name '*.cc' -o -name '*.proto*' \) -delete
# Tools of onnxruntime for training and conversion.
rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools
# OpenVINO for Intel's GPUs and NPUs, and its readers of files that are not ONNX.
rm -rf openvino/include openvino/libs/cache.json openvino/libs/libopenvino_intel_{gpu,npu}_plugin.so
rm -f openvino/libs/libopenvino_{tensorflow,tensorflow_lite,pytorch,paddle,gguf,jax}_frontend.so*
# Cascades of OpenCV for faces; stubs for type checkers.
rm -rf cv2/data/*.xml
find . -name '*.pyi' -delete
# AWS' descriptions of the services that are not ours: we speak SQS, and STS for roles.
find botocore/data -mindepth 1 -maxdepth 1 -type d \
  ! -name sqs ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} +
# Checked by the source's hash, never by a date: the root is read-only and layers have dates of
# their own. Without it every start would compile two thousand files anew.
"$environment/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site"
