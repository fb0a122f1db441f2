#!/bin/sh
# A registry for 16-registry.txt, where all hosts of the lab reach it; its pid goes into registry.pid.
cat >registry.yml <<END
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $PWD/registry}, delete: {enabled: true}}
http: {addr: "$1"}
END
OTEL_TRACES_EXPORTER=none docker-registry serve registry.yml >registry.log 2>&1 &
echo $! >registry.pid
