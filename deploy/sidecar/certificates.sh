#!/bin/sh
# Makes an authority that one sidecar's workload trusts and nobody else, a serving certificate for
# the names a client in a cluster uses, and a token for the sidecar's admin port; in the folder
# given, as the files of a Secret. The authority's key is thrown away: to renew, run it again.
set -eu
umask 077
OUT=${1:?folder}
DAYS=${DAYS:-365}

mkdir -p "$OUT"
work=$(mktemp -d)
openssl ecparam -name prime256v1 -genkey -noout -out "$work/ca.key"
openssl req -x509 -new -key "$work/ca.key" -days "$DAYS" -subj "/CN=apiguard-sidecar-ca" \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" \
  -out "$OUT/ca.crt"
openssl ecparam -name prime256v1 -genkey -noout -out "$OUT/tls.key"
openssl req -new -key "$OUT/tls.key" -subj "/CN=apiguard-sidecar" -out "$work/csr"
cat >"$work/ext" <<EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
EXTENSIONS
openssl x509 -req -in "$work/csr" -days "$DAYS" -extfile "$work/ext" -out "$OUT/tls.crt" \
  -CA "$OUT/ca.crt" -CAkey "$work/ca.key" -set_serial "0x$(openssl rand -hex 16)" 2>/dev/null
rm -r "$work"
openssl rand -base64 32 >"$OUT/admin-token"
