#!/bin/sh
# An etcd for 12-replication.txt: on loopback, with its data in the current directory; its pid goes into etcd.pid.
client=http://127.0.0.1:$P1 peer=http://127.0.0.1:$P2
etcd --data-dir store --name one --logger zap --log-level warn --unsafe-no-fsync \
    --listen-client-urls $client --advertise-client-urls $client --listen-peer-urls $peer \
    --initial-advertise-peer-urls $peer --initial-cluster one=$peer >etcd.log 2>&1 &
echo $! >etcd.pid
