{{- define "prunella.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- /* Short enough for the name of its pod and of its volume. */ -}}
{{- define "prunella.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "prunella.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "prunella.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "prunella.selector" -}}
app.kubernetes.io/name: {{ include "prunella.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "prunella.labels" -}}
{{ include "prunella.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "prunella.account" -}}
{{- default (include "prunella.fullname" .) .Values.serviceAccount.name -}}
{{- end }}

{{- define "prunella.subjects" -}}
- kind: ServiceAccount
  name: {{ include "prunella.account" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* The namespaces that it may heal in, one after the other. */ -}}
{{- define "prunella.namespaces" -}}
{{- prepend .Values.rights.namespaces .Release.Namespace | uniq | toJson -}}
{{- end }}

{{- /* prunella.yaml: policies are read from where there are rights, unless it says otherwise. */ -}}
{{- define "prunella.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if hasKey $config "operator" -}}
{{- $operator := deepCopy (default dict $config.operator) -}}
{{- if not (hasKey $operator "namespaces") -}}
{{- if .Values.rights.clusterWide -}}
{{- $_ := set $operator "namespaces" (list "*") -}}
{{- else if .Values.rights.namespaces -}}
{{- $_ := set $operator "namespaces" (include "prunella.namespaces" . | fromJsonArray) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "operator" $operator -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- /* What healing needs where it heals; docs/install-kubernetes.md says what each line is for. */ -}}
{{- define "prunella.healing" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [apps]
  resources: [replicasets, controllerrevisions]
  verbs: [get, list, watch]
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [get, list, watch, patch]
- apiGroups: [apps]
  resources: [deployments/scale, statefulsets/scale]
  verbs: [get, patch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, patch]
- apiGroups: [prunella.dev]
  resources: [healingpolicies]
  verbs: [list, watch]
- apiGroups: [prunella.dev]
  resources: [healingpolicies/status]
  verbs: [patch]
- apiGroups: [prunella.dev]
  resources: [healingactions]
  verbs: [get, list, create, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "prunella.circuits" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, patch]
- apiGroups: [networking.istio.io]
  resources: [virtualservices]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [services, pods]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}

{{- define "prunella.sync" -}}
- apiGroups: [argoproj.io]
  resources: [applications]
  verbs: [get, patch]
- apiGroups: [kustomize.toolkit.fluxcd.io]
  resources: [kustomizations]
  verbs: [get, patch]
- apiGroups: [helm.toolkit.fluxcd.io]
  resources: [helmreleases]
  verbs: [get, patch]
- apiGroups: [source.toolkit.fluxcd.io]
  resources: [gitrepositories, ocirepositories, buckets, helmcharts]
  verbs: [get]
{{- end }}

{{- /* A role and its binding: (dict "root" $ "name" NAME "rules" TEXT "namespace" NAME-OR-EMPTY) */ -}}
{{- define "prunella.role" -}}
{{- $cluster := empty .namespace -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $cluster | ternary "ClusterRole" "Role" }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "prunella.labels" .root | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $cluster | ternary "ClusterRoleBinding" "RoleBinding" }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "prunella.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $cluster | ternary "ClusterRole" "Role" }}
  name: {{ .name }}
subjects:
  {{- include "prunella.subjects" .root | nindent 2 }}
{{- end }}
