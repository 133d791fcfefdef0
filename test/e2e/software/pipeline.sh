# Numbered lines go through three processes and two pipes. The last one checks that none is
# missing, doubled or damaged, and says every hundred lines how many it saw and how many
# were wrong.
i=0
while :; do
	i=$((i + 1))
	echo "line $i of the pipeline"
	[ $((i % 50)) -ne 0 ] || sleep 0.05
done | tr a-z A-Z | mawk '
	$0 != "LINE " NR " OF THE PIPELINE" { wrong++ }
	NR % 100 == 0 { print NR, wrong + 0; fflush() }'
