{{/*
Values that would be lost silently are refused here, each with what to do instead. values.schema.json refuses what is
wrong by itself; here is what is wrong beside other values, or needs a sentence.
*/}}

{{/* What values.yaml has for runs and workers, but for what is empty there; a test holds that no default is refused. */}}
{{- define "testbench.usual" -}}
runs: {keepFromDrains: true, ttlSecondsAfterFinished: 86400, startTimeoutSeconds: 600, hostUsers: true, resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 4Gi}}}
worker: {hostUsers: true, resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 4Gi}}}
{{- end -}}

{{/* Refuses keys that are set; give "values", "usual", "where" they are, "keys", and the rest of the sentence, in which
%s, if it is there, is the key. */}}
{{- define "testbench.refuseSet" -}}
{{- range $key := .keys -}}
{{- if hasKey $.values $key -}}
{{- $value := get $.values $key -}}
{{- $usual := get $.usual $key -}}
{{- if hasKey $.usual $key | ternary (ne (toJson $value) (toJson $usual)) (not (empty $value)) -}}
{{- fail (printf "%s.%s has no effect %s" $.where $key ($.rest | replace "%s" $key)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "testbench.refusals" -}}
{{- include "testbench.refuseNames" . -}}
{{- include "testbench.refuseOfTheOtherLauncher" . -}}
{{- include "testbench.refuseSecondSources" . -}}
{{- include "testbench.refuseBehindSwitches" . -}}
{{- include "testbench.refuseTakenNames" . -}}
{{- end -}}

{{- define "testbench.refuseNames" -}}
{{- with .Values.nameOverride -}}
{{- if not (and (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" .) (le (len .) 63)) -}}
{{- fail (printf "nameOverride %s is no DNS label; use lower case letters, digits and -, 63 at most" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.fullnameOverride -}}
{{- if not (and (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .) (le (len .) 40)) -}}
{{- fail (printf "fullnameOverride %s cannot begin the names of objects; use a lower case letter, then letters, digits and -, 40 at most" .) -}}
{{- end -}}
{{- end -}}
{{- $name := include "testbench.fullname" . -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "names of Services begin with a letter, that of the release does not: %s; set fullnameOverride" $name) -}}
{{- end -}}
{{- end -}}

{{- define "testbench.refuseOfTheOtherLauncher" -}}
{{- $values := .Values -}}
{{- $usual := include "testbench.usual" . | fromYaml -}}
{{- $pod := list "affinity" "annotations" "hostUsers" "nodeSelector" "priorityClassName" "resources" "runtimeClassName" "tolerations" -}}
{{- if eq $values.launcher "celery" -}}
{{- $runs := dict "values" $values.runs "usual" $usual.runs "where" "runs" -}}
{{- include "testbench.refuseSet" (merge (dict "keys" $pod "rest" "with launcher: celery, whose runs are in the pods of workers; set worker.%s") $runs) -}}
{{- include "testbench.refuseSet" (merge (dict "keys" (list "keepFromDrains") "rest" "with launcher: celery, whose workers wait for their runs anyway; leave it out") $runs) -}}
{{- include "testbench.refuseSet" (merge (dict "keys" (list "ttlSecondsAfterFinished") "rest" "with launcher: celery, where runs have no pods that stay; leave it out") $runs) -}}
{{- if lt ($values.runs.startTimeoutSeconds | int) 3600 -}}
{{- include "testbench.refuseSet" (merge (dict "keys" (list "startTimeoutSeconds") "rest" "below 3600 with launcher: celery, where waiting in Redis counts; raise it, or leave it out") $runs) -}}
{{- end -}}
{{- else -}}
{{- include "testbench.refuseSet" (dict "values" $values.worker "usual" $usual.worker "where" "worker" "keys" $pod "rest" "with launcher: kubernetes, which gives each run a pod of its own; set runs.%s") -}}
{{- include "testbench.refuseSet" (dict "values" $values.stores "usual" dict "where" "stores" "keys" (list "redisUrl") "rest" "with launcher: kubernetes; set launcher: celery, or leave it out") -}}
{{- end -}}
{{- end -}}

{{- define "testbench.refuseSecondSources" -}}
{{- with .Values.stores -}}
{{- if .existingSecret -}}
{{- include "testbench.refuseSet" (dict "values" . "usual" dict "where" "stores" "keys" (without (keys . | sortAlpha) "existingSecret") "rest" "beside stores.existingSecret; put it into that Secret, or leave one of them out") -}}
{{- end -}}
{{- end -}}
{{- with .Values.keys -}}
{{- if .existingSecret -}}
{{- include "testbench.refuseSet" (dict "values" . "usual" dict "where" "keys" "keys" (list "values") "rest" "beside keys.existingSecret; put them into that Secret, or leave one of them out") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What would let people in, or more of them. Sizes, places and hosts may wait for their switch: who closes something
in haste has one value to change. */}}
{{- define "testbench.refuseBehindSwitches" -}}
{{- range $role := list "webserver" "board" "feed" -}}
{{- $values := get $.Values $role -}}
{{- if not $values.enabled -}}
{{- range $part := list "ingress" "autoscaling" -}}
{{- if (get $values $part).enabled -}}
{{- fail (printf "%s.%s.enabled has no effect while %s.enabled is false; set that to true, or this to false" $role $part $role) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne ($values.replicas | int) 1 -}}
{{- if not $values.enabled -}}
{{- fail (printf "%s.replicas has no effect while %s.enabled is false; set that to true, or leave it out" $role $role) -}}
{{- else if $values.autoscaling.enabled -}}
{{- fail (printf "%s.replicas has no effect with %s.autoscaling.enabled; set %s.autoscaling.minReplicas instead" $role $role $role) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not .Values.networkPolicy.enabled -}}
{{- include "testbench.refuseSet" (dict "values" .Values.networkPolicy "usual" dict "where" "networkPolicy" "keys" (list "from") "rest" "while networkPolicy.enabled is false, and all ports are open; set that to true, or leave it out") -}}
{{- end -}}
{{- end -}}

{{/* What stands twice in a pod is refused by Kubernetes, or one of both is lost. */}}
{{- define "testbench.refuseTakenNames" -}}
{{- $values := .Values -}}
{{- $stores := list "TESTBENCH_MONGO_URI" "TESTBENCH_POSTGRES_URI" "DAGSTER_POSTGRES_URL" "TESTBENCH_REDIS_URL" -}}
{{- range $where, $variables := dict "env" $values.env "keys.values" $values.keys.values -}}
{{- range $name, $_ := $variables -}}
{{- if has $name $stores -}}
{{- fail (printf "%s.%s is set by the chart; use stores instead" $where $name) -}}
{{- else if has $name (list "DAGSTER_HOME" "TESTBENCH_CONFIG" "TESTBENCH_HOME" "DAGSTER_RUN_JOB_NAME") -}}
{{- fail (printf "%s.%s is set by the chart, as the paths in its pods want it; leave it out" $where $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $values.keys.values -}}
{{- if hasKey $values.env $name -}}
{{- fail (printf "env and keys.values both have %s; remove one of them" $name) -}}
{{- end -}}
{{- end -}}
{{- $mark := "cluster-autoscaler.kubernetes.io/safe-to-evict" -}}
{{- if hasKey (default dict $values.runs.annotations) $mark -}}
{{- fail (printf "runs.annotations has %s, which the chart sets; set runs.keepFromDrains instead" $mark) -}}
{{- end -}}
{{- range $name, $_ := $values.worker.annotations -}}
{{- if hasPrefix "checksum/" $name -}}
{{- fail (printf "worker.annotations has %s, which the chart sets; leave it out" $name) -}}
{{- end -}}
{{- end -}}
{{- $volumes := list "config" "instance" "dagster-home" "home" "tmp" "key-files" -}}
{{- range $values.extraVolumes -}}
{{- if has .name $volumes -}}
{{- fail (printf "extraVolumes has %s, and a pod has a volume of that name already; choose another name" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $paths := list "/etc/testbench" "/etc/testbench-keys" "/opt/dagster/dagster_home" "/opt/dagster/dagster_home/dagster.yaml" "/opt/dagster/dagster_home/workspace.yaml" "/var/lib/testbench" "/tmp" -}}
{{- range $values.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- fail (printf "extraVolumeMounts has %s, and there is no such volume; add it to extraVolumes" .name) -}}
{{- end -}}
{{- $path := trimSuffix "/" .mountPath -}}
{{- if has $path $paths -}}
{{- fail (printf "extraVolumeMounts has %s, where something is mounted already; choose another mountPath" .mountPath) -}}
{{- end -}}
{{- $paths = append $paths $path -}}
{{- end -}}
{{- end -}}
