#!/bin/sh
# Real stores for 47-registrator.txt and 48-render.txt on loopback, with data in the current directory: etcd on $P1 (both versions of its
# API), Consul on $P3, ZooKeeper on $P6. Their pids go into *.pid. With a name, only that one is started. etcd listens on $ALSO_ON, too.
consul_cache=${PYTHON%/clients/*}/consul
start_etcd() {
    client=http://127.0.0.1:$P1 peer=http://127.0.0.1:$P2
    etcd --data-dir etcd-store --name one --logger zap --log-level warn --unsafe-no-fsync --enable-v2 \
        --listen-client-urls $client${ALSO_ON:+,http://$ALSO_ON:$P1} --advertise-client-urls $client --listen-peer-urls $peer \
        --initial-advertise-peer-urls $peer --initial-cluster one=$peer >etcd.log 2>&1 &
    echo $! >etcd.pid
}
start_consul() {
    "$(sh "$SCENARIOS/../../../../xtask/assets/fetch-consul.sh" "$consul_cache")" agent -server -bootstrap-expect=1 \
        -bind=127.0.0.1 -client=127.0.0.1 -log-level=warn -data-dir consul-store -node consul1 \
        -dns-port=-1 -grpc-port=-1 -http-port=$P3 -server-port=$P4 -serf-lan-port=$P5 -serf-wan-port=-1 \
        -hcl 'session_ttl_min = "1s"' -hcl 'performance { raft_multiplier = 1 }' -hcl 'disable_update_check = true' >consul.log 2>&1 &
    echo $! >consul.pid
}
start_zookeeper() {
    printf 'tickTime=500\ndataDir=%s\nclientPortAddress=127.0.0.1\nclientPort=%s\nadmin.enableServer=false\n4lw.commands.whitelist=*\n' \
        "$PWD/zookeeper-store" "$P6" >zoo.cfg
    java -Xmx64m -XX:+UseSerialGC -XX:-UsePerfData -cp /usr/share/java/zookeeper.jar \
        org.apache.zookeeper.server.ZooKeeperServerMain zoo.cfg >zookeeper.log 2>&1 &
    echo $! >zookeeper.pid
}
case ${1:-all} in
all)
    rm -rf etcd-store consul-store zookeeper-store
    start_etcd
    start_consul
    start_zookeeper
    ;;
*) "start_$1" ;;
esac
