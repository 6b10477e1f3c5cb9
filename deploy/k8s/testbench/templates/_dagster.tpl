{{- define "testbench.dagsterYaml" -}}
{{ include "testbench.dagsterSettings" . }}
run_launcher:
  {{- if eq .Values.launcher "celery" }}
  {{- include "testbench.celeryLauncher" . | nindent 2 }}
  {{- else }}
  {{- include "testbench.k8sLauncher" . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The root's dagster.yaml with other limits, but for what starts runs. A test holds the rest alike. */}}
{{- define "testbench.dagsterSettings" -}}
{{- $runs := .Values.runs -}}
{{- if gt (add $runs.evaluations $runs.probes | int) ($runs.maxConcurrent | int) -}}
{{- fail (printf "runs.evaluations %v and runs.probes %v do not fit into runs.maxConcurrent %v; raise the last" $runs.evaluations $runs.probes $runs.maxConcurrent) -}}
{{- end -}}
storage:
  custom:
    module: testbench_dagster.defs.storage
    class: TestbenchStorage
    config: {}
run_coordinator:
  module: testbench_dagster.defs.run_queue
  class: TestbenchRunQueue
  config:
    max_concurrent_runs: {{ $runs.maxConcurrent | int }}
    evaluations: {{ $runs.evaluations | int }}
    tag_concurrency_limits:
      - key: testbench/kind
        value: service_probes
        limit: {{ $runs.probes | int }}
concurrency:
  pools:
    granularity: run
compute_logs:
  {{- if .Values.computeLogs }}
  {{- toYaml .Values.computeLogs | nindent 2 }}
  {{- else }}
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
  {{- end }}
run_monitoring:
  enabled: true
  start_timeout_seconds: {{ ternary (max $runs.startTimeoutSeconds 3600) $runs.startTimeoutSeconds (eq .Values.launcher "celery") | int }}
  cancel_timeout_seconds: {{ $runs.cancelTimeoutSeconds | int }}
  max_runtime_seconds: {{ $runs.maxRuntimeSeconds | int }}
  poll_interval_seconds: 30
run_retries:
  enabled: true
  max_retries: 1
  retry_on_asset_or_op_failure: false
sensors:
  use_threads: true
  num_workers: 4
  num_submit_workers: 2
schedules:
  use_threads: true
  num_workers: 2
  num_submit_workers: 2
backfills:
  use_threads: true
  num_workers: 2
retention:
  schedule:
    purge_after_days: 90
  sensor:
    purge_after_days:
      skipped: 3
      failure: 30
      success: 30
  auto_materialize:
    purge_after_days:
      skipped: 3
      failure: 30
      success: 30
telemetry:
  enabled: false
nux:
  enabled: false
{{- end -}}

{{- define "testbench.k8sLauncher" -}}
{{- $runs := .Values.runs -}}
{{- $pod := dict "root" . "stores" (list "dagster" "documents") "keys" true "workspace" false "prefix" "" "launched" true -}}
module: dagster_k8s.launcher
class: K8sRunLauncher
config:
  load_incluster_config: true
  job_namespace: {{ .Release.Namespace }}
  service_account_name: {{ include "testbench.fullname" . }}
  job_image: {{ include "testbench.image" . }}
  image_pull_policy: {{ .Values.image.pullPolicy }}
  {{- with .Values.image.pullSecrets }}
  image_pull_secrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  dagster_home: /opt/dagster/dagster_home
  instance_config_map: {{ include "testbench.fullname" . }}-instance
  labels:
    {{- include "testbench.selector" . | nindent 4 }}
  run_k8s_config:
    container_config:
      env:
        {{- include "testbench.env" $pod | trim | nindent 8 }}
      envFrom:
        {{- include "testbench.envFrom" $pod | nindent 8 }}
      volumeMounts:
        {{- include "testbench.volumeMounts" $pod | nindent 8 }}
      securityContext:
        {{- include "testbench.containerSecurityContext" . | nindent 8 }}
      resources:
        {{- toYaml $runs.resources | nindent 8 }}
    pod_template_spec_metadata:
      annotations:
        cluster-autoscaler.kubernetes.io/safe-to-evict: {{ not $runs.keepFromDrains | quote }}
        {{- with $runs.annotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    pod_spec_config:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $runs.cancelTimeoutSeconds | int }}
      securityContext:
        {{- include "testbench.podSecurityContext" . | nindent 8 }}
      {{- include "testbench.sandbox" $runs | nindent 6 }}
      {{- include "testbench.placement" $runs | nindent 6 }}
      volumes:
        {{- include "testbench.volumes" $pod | nindent 8 }}
    job_spec_config:
      ttlSecondsAfterFinished: {{ $runs.ttlSecondsAfterFinished | int }}
{{- end -}}

{{/* As deploy/celery/dagster.yaml has it, which says why; a test holds both alike. */}}
{{- define "testbench.celeryLauncher" -}}
module: testbench_dagster.defs.celery_launcher
class: TestbenchCeleryLauncher
config:
  broker:
    env: TESTBENCH_REDIS_URL
  backend:
    env: TESTBENCH_REDIS_URL
  default_queue: dagster
  config_source:
    worker_disable_prefetch: true
    worker_prefetch_multiplier: 1
    worker_max_tasks_per_child: 1
    broker_transport_options:
      visibility_timeout: {{ add .Values.runs.maxRuntimeSeconds 3600 }}
      socket_keepalive: true
    broker_connection_retry_on_startup: true
    broker_connection_max_retries: null
    redis_socket_keepalive: true
    redis_retry_on_timeout: true
    result_expires: 86400
    worker_send_task_events: false
    worker_redirect_stdouts: false
{{- end -}}

{{- define "testbench.workspaceYaml" -}}
load_from:
  - grpc_server:
      host: {{ include "testbench.fullname" . }}-code
      port: 4000
      location_name: testbench
{{- end -}}
