package main

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

func TestProgress(t *testing.T) {
	m := &v1alpha1.PodMigration{}
	m.Status.Source.Node = "n1"
	show := func(terminal bool) string {
		var out strings.Builder
		p := printer{out: &out, terminal: terminal}
		at := metav1.NewMicroTime(time.Unix(1, 0))
		m.Status.Timeline = []v1alpha1.TimelineEntry{{Step: "Frozen", By: "n1", At: at}}
		m.Status.Source.Offered = false
		m.Status.Transfer = &v1alpha1.TransferStatus{AheadBytes: 512 << 20, Rounds: 2, WireBytes: 1 << 20}
		p.print(m)
		p.print(m) // the same again says nothing
		m.Status.Transfer = &v1alpha1.TransferStatus{
			AheadBytes: 512 << 20, Rounds: 3, SentBytes: 256 << 20, TotalBytes: 1 << 30, WireBytes: 3 << 19,
			BytesPerSecond: 128 << 20, TimeLeft: &metav1.Duration{Duration: 6 * time.Second},
		}
		p.print(m)
		m.Status.Timeline = append(m.Status.Timeline, v1alpha1.TimelineEntry{Step: "Sent", By: "n1", At: at})
		m.Status.Source.Offered = true
		m.Status.Transfer = &v1alpha1.TransferStatus{SentBytes: 1, TotalBytes: 1}
		p.print(m)
		return out.String()
	}
	first := "           n1           512.0 MiB before the freeze in 2 rounds, 1.0 MiB on the link"
	second := "           n1           512.0 MiB before the freeze in 3 rounds, 256.0 MiB of 1024.0 MiB sent (25 %), 128.0 MiB/s, about 6s left, 1.5 MiB on the link"
	frozen, sent := "   0.000s  n1           Frozen           \n", "   0.000s  n1           Sent             \n"
	if got, want := show(false), frozen+first+"\n"+second+"\n"+sent; got != want {
		t.Errorf("in lines:\n%q, want\n%q", got, want)
	}
	again := "\r\x1b[K"
	if got, want := show(true), frozen+again+first+again+second+again+sent; got != want {
		t.Errorf("on a terminal:\n%q, want\n%q", got, want)
	}
}
