# SIMULATED: these numbers come from a model of the engine, not from a measurement.
# autotune 0.1.0, study llama-8b-1xh100--ttft-p95-10s-at-50, trial 0; evidence in EVIDENCE.md.
{{- define "engine.pod" -}}
metadata:
  labels:
    app.kubernetes.io/name: {{ .Values.name }}
spec:
  {{- with .Values.pod }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ .Values.container.name }}
      {{- toYaml (omit .Values.container "name") | nindent 6 }}
      {{- with .resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .probes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  {{- with .Values.volumes }}
  volumes:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- define "engine.metadata" -}}
labels:
  app.kubernetes.io/name: {{ .Values.name }}
{{- with .Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
