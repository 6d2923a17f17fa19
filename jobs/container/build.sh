#!/usr/bin/env bash
# What both recipes run inside a bare Debian 12: install what is needed, build this clone, install it into /usr/local.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

install_missing "$needs_of_build$needs_of_onnx"
build /tmp/build all -DUNROLL_BUILD_TESTS=OFF -DCMAKE_INSTALL_PREFIX=/usr/local
cmake --install /tmp/build
rm -rf /tmp/build /var/lib/apt/lists/*
