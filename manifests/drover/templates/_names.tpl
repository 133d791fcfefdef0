{{- define "drover.image" -}}
{{ .root.Values.image.registry }}/drover-{{ .program }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "drover.labels" -}}
app.kubernetes.io/name: drover-{{ .program }}
app.kubernetes.io/part-of: drover
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{- define "drover.selector" -}}
app.kubernetes.io/name: drover-{{ .program }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "drover.scrape" -}}
{{- if .Values.metrics.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: "7949"
prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{/* For programs that need nothing from the node: no root, no capability, nothing writable. */}}
{{- define "drover.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}
