#!/bin/sh
# Issues what the guard shows others, from the authorities kubeadm keeps on the node. Run it again
# to renew: the guard uses new files within ten seconds and keeps its connections.
#
#   tls          to clients: the names of kube-apiserver's own certificate
#   front-proxy  to kube-apiserver, on behalf of callers with certificates; whoever holds its key is
#                anybody
#   own          to kube-apiserver, as itself: user apiguard, no group
set -eu
umask 027
PKI=${PKI:-/etc/kubernetes/pki}       # where ca.crt, front-proxy-ca.crt and their keys are
OUT=${OUT:-/etc/apiguard}
DAYS=${DAYS:-365}
GUARD_GROUP=${GUARD_GROUP:-65532}     # the group that may read keys: that of the guard's process

names=$(openssl x509 -in "$PKI/apiserver.crt" -noout -ext subjectAltName |
  sed -n 's/IP Address:/IP:/g; s/^ *\(\(DNS\|IP\):.*\)$/\1/p')

# issue NAME AUTHORITY SUBJECT EXTENSIONS
issue() {
  work=$(mktemp -d)
  openssl ecparam -name prime256v1 -genkey -noout -out "$work/key"
  printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n%b\n' "$4" >"$work/ext"
  openssl req -new -key "$work/key" -subj "$3" -out "$work/csr"
  openssl x509 -req -in "$work/csr" -days "$DAYS" -extfile "$work/ext" -out "$work/crt" \
    -CA "$PKI/$2.crt" -CAkey "$PKI/$2.key" -set_serial "0x$(openssl rand -hex 16)" 2>/dev/null
  chmod 0640 "$work/key" "$work/crt"
  chgrp "$GUARD_GROUP" "$work/key" "$work/crt"
  mv "$work/key" "$OUT/$1.key"
  mv "$work/crt" "$OUT/$1.crt"
  rm -r "$work"
}

issue tls ca /CN=apiguard "extendedKeyUsage=serverAuth\nsubjectAltName=$names"
issue front-proxy front-proxy-ca /CN=apiguard "extendedKeyUsage=clientAuth"
issue own ca /CN=apiguard "extendedKeyUsage=clientAuth"
