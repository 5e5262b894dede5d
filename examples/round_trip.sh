#!/usr/bin/env bash
# Trains on the embedded digits, which ends with an export, serves it, and asks for the class of a real digit:
#
#   examples/round_trip.sh [RUN_DIR [OPTIONS OF train_cifar.py]]
set -euo pipefail
cd "$(dirname "$0")/.."
run_dir=${1:-runs/digits}
said=$(mktemp)

python train_cifar.py --recipe digits --run-dir "$run_dir" "${@:2}"
allconv-resnet serve "$run_dir/export" --name digits --port 0 > "$said" &
server=$!
trap 'kill $server; wait $server; rm "$said"' EXIT
until address=$(grep -o 'http://.*/v1/models/digits' "$said"); do
    kill -0 $server
    sleep 0.2
done
python examples/client.py "$address" examples/seven.png
allconv-resnet predict "$run_dir/export" examples/seven.png # the same without a server
