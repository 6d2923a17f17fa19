#!/usr/bin/env bash
# Install what is missing, build into build/ and run the whole test suite.
#
#   jobs/test.sh                 all but the tests that take minutes each
#   jobs/test.sh --slow          those too, but for the long campaigns (ctest -L campaign)
#   jobs/test.sh --sanitize      the same in build-sanitize/, with address and undefined sanitizers
#
# Two tests run at a time: many only wait for something. Further arguments go to ctest, for example -R story. Ends with
# ctest's summary, and its exit status.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder=$root/build
sanitize=
exclude='slow|campaign'
arguments=()
for word in "$@"; do
  case $word in
  --sanitize)
    folder=$root/build-sanitize
    sanitize=address,undefined
    ;;
  --slow) exclude=campaign ;;
  *) arguments+=("$word") ;;
  esac
done

install_missing "$needs_of_build$needs_of_tests"
(install_missing "$needs_of_onnx") || echo "unroll export --onnx will be left out" >&2
(install_missing "$needs_of_some_tests") || echo "tests that need these will be skipped, or a part of them" >&2
(install_missing "$needs_of_analysis") || echo "what opens run files with these will be skipped" >&2
build "$folder" all -DUNROLL_BUILD_TESTS=ON -DUNROLL_SANITIZE=$sanitize
# Run files and exports as browsers and servers open them: HDF5 and onnxruntime for Node.
timeout 120 npm install --silent --no-save --ignore-scripts --prefix "$folder" h5wasm@0.10 onnxruntime-node@1 ||
  echo "no h5wasm and onnxruntime-node from npm: what opens files with them will be skipped" >&2
exec ctest --test-dir "$folder" --output-on-failure --parallel 2 -LE "$exclude" \
  ${arguments[@]+"${arguments[@]}"}
