# Starts Debian's `pebble`, an authority for tests, and a DNS server by which a name leads to all of the addresses.
# 51-pebble.sh ADDRESS NAME TO...
# Leaves `ca.pem`, by which its own address is trusted, and the process ids in `pebble.pid`.
address=$1 name=$2
shift 2
ext=subjectAltName=IP:$address
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pebble-ca -days 2 -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pebble -keyout pebble.key -out pebble.csr 2>/dev/null
echo "$ext" >pebble.ext
openssl x509 -req -in pebble.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile pebble.ext -out pebble.pem 2>/dev/null
cat >pebble.json <<END
{"pebble": {"listenAddress": "$address:14000", "managementListenAddress": "$address:15000", "certificate": "pebble.pem",
 "privateKey": "pebble.key", "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false}}
END
pebble-challtestsrv -http01 "" -https01 "" -tlsalpn01 "" -defaultIPv6 "" -dns01 "$address:8053" -management "$address:8055" >names.log 2>&1 &
echo $! >pebble.pid
PEBBLE_VA_NOSLEEP=1 PEBBLE_AUTHZREUSE=0 pebble -config pebble.json -dnsserver "$address:8053" >pebble.log 2>&1 &
echo $! >>pebble.pid
to=$(printf '"%s",' "$@")
for _ in $(seq 200); do
    curl -sf --cacert ca.pem "https://$address:14000/dir" >/dev/null &&
        curl -sf -d "{\"host\": \"$name.\", \"addresses\": [${to%,}]}" "http://$address:8055/add-a" && break
    sleep 0.1
done
