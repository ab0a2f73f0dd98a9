#!/bin/sh
# Installs the linters written in Go, and the schemas of the chart's custom resources: linters.sh BIN
set -eu
mkdir -p "$1/crds"
bin=$(cd "$1" && pwd)

GOBIN=$bin go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GOBIN=$bin go install github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
GOBIN=$bin go install helm.sh/helm/v3/cmd/helm@v3.22.0

module() { # NAME@VERSION: fetched, and where it lies
    go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

# `go install` refuses modules with replace directives.
compose=$(module github.com/docker/compose/v2@v2.40.3)
(cd "$compose" && go build -o "$bin/docker-compose" ./cmd)

keda=$(module github.com/kedacore/keda/v2@v2.21.0)
install -m 0644 "$keda/config/crd/bases/keda.sh_scaledobjects.yaml" "$bin/crds"
operator=$(module github.com/prometheus-operator/prometheus-operator@v0.85.0)
install -m 0644 "$operator/example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml" "$bin/crds"
