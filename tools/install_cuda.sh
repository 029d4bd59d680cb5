#!/usr/bin/env bash
# Install what the CUDA module compiles with into a manylinux_2_28 image: the compiler and the runtime of the CUDA release
# that torch on PyPI is built with. [tool.cibuildwheel] of pyproject.toml runs it once per image.
set -euo pipefail

release=${1:?the CUDA release, such as 13.0}
dnf install -y dnf-plugins-core
dnf config-manager --add-repo https://developer.download.nvidia.com/compute/cuda/repos/rhel8/x86_64/cuda-rhel8.repo
dnf install -y "cuda-nvcc-${release/./-}" "cuda-cudart-devel-${release/./-}" "cuda-cccl-${release/./-}"
ln -sfn "/usr/local/cuda-$release" /usr/local/cuda
/usr/local/cuda/bin/nvcc --version
