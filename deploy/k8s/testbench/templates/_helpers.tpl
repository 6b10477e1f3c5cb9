{{- define "testbench.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- ternary $release (printf "%s-%s" $release $name) (contains $name $release) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "testbench.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of this release. */}}
{{- define "testbench.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of an object; give (dict "root" $ "role" "code"). */}}
{{- define "testbench.labels" -}}
{{ include "testbench.selector" .root }}
app.kubernetes.io/component: {{ .role }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "testbench.roleSelector" -}}
{{ include "testbench.selector" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{/* Give (dict "root" $ "prefix" ""). */}}
{{- define "testbench.storesSecret" -}}
{{- default (printf "%s-%sstores" (include "testbench.fullname" .root) .prefix) .root.Values.stores.existingSecret -}}
{{- end -}}

{{/* "": there are no keys. */}}
{{- define "testbench.keysSecret" -}}
{{- if .Values.keys.existingSecret -}}
{{- .Values.keys.existingSecret -}}
{{- else if .Values.keys.values -}}
{{- printf "%s-keys" (include "testbench.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* The account of what starts and ends pods of runs; others have no token. */}}
{{- define "testbench.launcherAccount" -}}
{{- printf "%s-launcher" (include "testbench.fullname" .) -}}
{{- end -}}

{{/* The files of /etc/testbench. */}}
{{- define "testbench.configFiles" -}}
{{- if not .Values.testbenchYaml -}}
{{- fail "testbenchYaml is empty; add --set-file testbenchYaml=testbench.yaml" -}}
{{- end -}}
{{- $config := .Values.testbenchYaml | fromYaml -}}
{{- if and (not (hasKey $config "Error")) (not $config.installation) -}}
{{- fail "testbenchYaml has no installation; add a line such as installation: my-network: pods keep no home to know each other by" -}}
{{- end -}}
{{- if hasKey .Values.files "testbench.yaml" -}}
{{- fail "files holds testbench.yaml, which is what testbenchYaml is for; remove one of them" -}}
{{- end -}}
testbench.yaml: {{ .Values.testbenchYaml | toJson }}
{{- range $name, $text := .Values.files }}
{{ $name }}: {{ $text | toJson }}
{{- end }}
{{- end -}}

{{- define "testbench.storesData" -}}
{{- $stores := .Values.stores -}}
{{- $wanted := dict "TESTBENCH_MONGO_URI" "mongoUri" "TESTBENCH_POSTGRES_URI" "postgresUri" "DAGSTER_POSTGRES_URL" "dagsterPostgresUrl" -}}
{{- if eq .Values.launcher "celery" -}}
{{- $_ := set $wanted "TESTBENCH_REDIS_URL" "redisUrl" -}}
{{- end -}}
{{- range $variable, $value := $wanted }}
{{- if not (get $stores $value) -}}
{{- fail (printf "stores.%s is empty; set it, or name in stores.existingSecret a Secret that has %s" $value $variable) -}}
{{- end }}
{{ $variable }}: {{ get $stores $value | toJson }}
{{- end }}
{{- end -}}

{{/* What restarts a pod when it changes. */}}
{{- define "testbench.checksums" -}}
checksum/config: {{ include "testbench.configFiles" . | sha256sum }}
checksum/instance: {{ include "testbench.dagsterYaml" . | sha256sum }}
{{- if not .Values.stores.existingSecret }}
checksum/stores: {{ include "testbench.storesData" . | sha256sum }}
{{- end }}
{{- if and .Values.keys.values (not .Values.keys.existingSecret) }}
checksum/keys: {{ .Values.keys.values | toJson | sha256sum }}
{{- end }}
{{- end -}}
