#!/bin/sh
# Runs a fuzz target on stable Rust: fuzz/run.sh debezium -max_total_time=60
# Needs a C++ compiler for libFuzzer. Extra arguments go to libFuzzer.
set -eu
cd "$(dirname "$0")"
name=${1:?name of a target}
shift
host=$(rustc -vV | sed -n 's/^host: //p')
target=${FUZZ_TARGET_DIR:-$PWD/target}
# --target keeps the instrumentation out of build scripts.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
    CARGO_TARGET_DIR="$target" cargo build --release --target "$host" --bin "$name"
mkdir -p "corpus/$name"
exec "$target/$host/release/$name" -dict="$name.dict" "$@" "corpus/$name" ../tests/golden/debezium_docs
