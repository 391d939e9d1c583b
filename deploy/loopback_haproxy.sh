#!/bin/sh
# Stands for HAProxy in a local stack. Ray lets the Serve port be bound to an address, but writes the ports of HAProxy's
# metrics and statistics into its configuration with none, which means all. So they get one here, before HAProxy reads it.
# Called as Ray calls HAProxy: -db -f CONFIG [-dR] [-sf PID ...]
set -eu
config=
previous=
for argument in "$@"; do
    [ "$previous" != -f ] || config=$argument
    previous=$argument
done
sed -E 's/^( *bind )(\*)?:([0-9]+)/\1127.0.0.1:\3/' "$config" > "$config.loopback"
mv "$config.loopback" "$config"
exec "$FOVEA_HAPROXY_BINARY" "$@"
