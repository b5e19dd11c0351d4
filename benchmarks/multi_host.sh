#!/usr/bin/env bash
# Training on two hosts: the losses of one host, also when one of the two fails within an epoch and comes back.
#
#   benchmarks/multi_host.sh OUTPUT [arguments of train.py ...]
#
# Needs root and iproute2: the hosts are network namespaces of this machine, joined by a pair of virtual network cards, with
# the file system in common. Trains in OUTPUT/{one_host,two_hosts,host_lost}, prints the losses of each, and ends with 1 if
# they differ. The second host is lost as by a power cut: its network goes down first, so that nothing is said to the other.
set -euo pipefail
output=$1; shift
python=${PYTHON:-python}
first=vb$$a second=vb$$b port=29400
export OMP_NUM_THREADS=1

clean_up() {
    for host in $first $second; do
        ip netns pids $host 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns del $host 2>/dev/null || true
        rm -rf /etc/netns/$host
    done
}
trap clean_up EXIT

make_hosts() {
    for host in $first $second; do
        ip netns add $host
        mkdir -p /etc/netns/$host  # what a name server says: looking up a peer's name must not wait for one
        printf '127.0.0.1 localhost\n10.77.0.1 %s\n10.77.0.2 %s\n' $first $second >/etc/netns/$host/hosts
        : >/etc/netns/$host/resolv.conf
    done
    ip link add eth0 netns $first type veth peer name eth0 netns $second
    for host in $first $second; do ip -n $host link set lo up; ip -n $host link set eth0 up; done
    ip -n $first addr add 10.77.0.1/24 dev eth0
    ip -n $second addr add 10.77.0.2/24 dev eth0
}

# on HOST ADDRESS IS_HOST LOG ARGUMENTS...: what a user starts on each host. Without is_host and --local_addr the hosts do
# not find each other (torchrun compares host names), without GLOO_SOCKET_IFNAME gloo may take the loopback device, and
# without TORCH_DISABLE_SHARE_RDZV_TCP_STORE a host that comes back waits in vain (PyTorch's issue 135712).
on() {
    local host=$1 address=$2 is_host=$3 log=$4; shift 4
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 GLOO_SOCKET_IFNAME=eth0 ip netns exec "$host" "$python" -m torch.distributed.run --nnodes 2 --nproc_per_node 1 \
        --max_restarts 3 --rdzv_backend c10d --rdzv_endpoint 10.77.0.1:$port --rdzv_id training \
        --rdzv_conf is_host="$is_host" --local_addr "$address" train.py "$@" >>"$log" 2>&1
}

losses() { cut -d, -f1,2 "$1/metrics.csv"; }

mkdir -p "$output"
make_hosts

"$python" -m torch.distributed.run --standalone --nproc_per_node 2 \
    train.py "$@" --output_folder "$output/one_host" >"$output/one_host.log" 2>&1

on $second 10.77.0.2 false "$output/two_hosts.2.log" "$@" --output_folder "$output/two_hosts" &
on $first 10.77.0.1 true "$output/two_hosts.1.log" "$@" --output_folder "$output/two_hosts"
wait

lost=$output/host_lost port=29401 often=(--ckpt_interval_minutes 0 --ckpt_interval_steps 2)
on $first 10.77.0.1 true "$lost.1.log" "$@" --output_folder "$lost" "${often[@]}" &
whole=$!
on $second 10.77.0.2 false "$lost.2.log" "$@" --output_folder "$lost" "${often[@]}" &
until [ -f "$lost/metrics.csv" ] &&
    find "$lost/save" -name CKPT.yaml -newer "$lost/metrics.csv" -exec grep -ls brain_intra_epoch_ckpt {} + | grep -q .; do
    kill -0 $whole  # ends the script if training has ended
    sleep 0.05
done
ip -n $second link set eth0 down
ip netns pids $second | xargs kill -9
echo "second host lost after $(tail -n 1 "$lost/metrics.csv" | cut -d, -f1) epochs and some steps"
sleep 2
ip -n $second link set eth0 up
on $second 10.77.0.2 false "$lost.2.log" "$@" --output_folder "$lost" "${often[@]}" &
back=$!
wait $whole $back

for run in one_host two_hosts host_lost; do echo "$run: $(losses "$output/$run" | tr '\n' ' ')"; done
"$python" - "$output" <<'EOF'
import sys
import pandas as pd
runs = [pd.read_csv(f"{sys.argv[1]}/{run}/metrics.csv") for run in ("one_host", "two_hosts", "host_lost")]
for run in runs[1:]:
    pd.testing.assert_frame_equal(run[["epoch", "train_loss"]], runs[0][["epoch", "train_loss"]], rtol=1e-4)
EOF
