{{/* Documents for others than Kubernetes, as YAML. The argument is what they hold, not yet a text. */}}

{{- /*
Numbers: Helm has those of a file as float64, and those of `--set` as int64 or texts. toYaml goes through JSON, so that a whole
number comes out as one, however large (12845056, which alone in a template would be 1.2845056e+07, and no number of pixels to a
reader that is strict). What stays is a float64 below 0.0001 with one digit, `6e-05`: YAML 1.1, as Python reads it, wants a dot. A
line of a longer text that ends in such a number gets one, too, and says the same.
*/}}
{{- define "fovea.document" -}}
{{- regexReplaceAll "(?m)([:-] +)(-?[0-9])e([-+][0-9]+)$" (toYaml .) "${1}${2}.0e${3}" -}}
{{- end -}}
