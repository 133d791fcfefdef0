package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

func TestRoutesShowWhatApplicationsFeel(t *testing.T) {
	r := traffic.Routes{Unknown: "connections are not followed here: no", Routes: []traffic.Route{
		{Peer: "n2", Time: &model.RouteTime{RTT: 2 * time.Millisecond, Spread: 100 * time.Microsecond, Stamp: model.StampKernel}, RoundTrips: map[traffic.Path]traffic.RoundTrip{
			traffic.NodePath: {Smoothed: 2100 * time.Microsecond, Min: 2 * time.Millisecond, Segments: 4},
			traffic.PodPath:  {Smoothed: 9 * time.Millisecond, Segments: 4},
		}},
		{Peer: "n3", Time: &model.RouteTime{RTT: time.Millisecond, Stamp: model.StampUser}},
		{Peer: "n4", RoundTrips: map[traffic.Path]traffic.RoundTrip{traffic.PodPath: {Smoothed: time.Millisecond, Min: time.Millisecond, Segments: 1}}},
	}}
	var out bytes.Buffer
	if err := printWays(&out, "n1", r); err != nil {
		t.Fatal(err)
	}
	want := `
TO   ROUTE TIME   SPREAD     SMOOTHED RTT, NODES   MIN RTT    SMOOTHED RTT, PODS   MIN RTT
n2   2.000 ms     0.100 ms   2.100 ms              2.000 ms   9.000 ms             -
n3   1.000 ms*    0.000 ms   -                     -          -                    -
n4   ?            ?          -                     -          1.000 ms             1.000 ms
* stamped in user space: a busy node spoils it
no round trips of connections from n1: connections are not followed here: no
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
}

func TestTrafficShowsWhoTalksToWhom(t *testing.T) {
	pod := traffic.Endpoint{Pod: model.PodID{Namespace: "shop", Name: "web", UID: "u"}, Node: "n1"}
	r := traffic.Report{Source: "sock_ops", Lost: 3,
		Talks: []traffic.Talk{
			{Local: pod, Remote: traffic.Endpoint{Node: "n2", Address: "10.2.0.5"}, Sent: 3 << 20, Received: 9999, Sending: 20480},
			{Local: pod, Remote: traffic.Endpoint{Address: "10.96.0.1"}, Sent: 1},
			{Local: pod, Remote: traffic.Endpoint{Address: "192.0.2.1"}},
			{Local: pod, Remote: traffic.Other},
			{Local: traffic.Endpoint{Node: "n1"}, Remote: traffic.Endpoint{Node: "n2"}},
			{Local: traffic.Endpoint{Node: "n1"}, Remote: pod},
		},
		Links: []traffic.Link{
			{Name: "eth0", Sent: 25e6, Received: 100e6, Capacity: 125e6},
			{Name: "eth1", Unknown: "it is no hardware"},
		}}
	var out bytes.Buffer
	if err := printTraffic(&out, "n1", r, 5, map[string]string{"10.2.0.5": "shop/db", "10.96.0.1": "service default/kubernetes"}); err != nil {
		t.Fatal(err)
	}
	want := `
ON n1      TALKS TO                     ON   SENDS        RECEIVES   SENT         RECEIVED
shop/web   shop/db                      n2   20.0 KiB/s   0 B/s      3072.0 KiB   9999 B
shop/web   service default/kubernetes   -    0 B/s        0 B/s      1 B          0 B
shop/web   192.0.2.1                    -    0 B/s        0 B/s      0 B          0 B
shop/web   others                       -    0 B/s        0 B/s      0 B          0 B
node n1    node n2                      n2   0 B/s        0 B/s      0 B          0 B
and 1 more

DEVICE   SENDS        RECEIVES     CAN CARRY                    TO SPARE
eth0     23.8 MiB/s   95.4 MiB/s   119.2 MiB/s                  23.8 MiB/s
eth1     0 B/s        0 B/s        unknown: it is no hardware   unknown
connections that were open when the agent was started are not counted: it has no tracepoint
3 connections had no room in the kernel's tables: these figures are too low
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
}

// Who may not list pods or Services sees addresses.
func TestHoldersOfAddresses(t *testing.T) {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}, Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.7", "fd00::7"}}}
	pods := map[string]corev1.PodStatus{
		"runs":  {Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.2.0.5"}}},
		"ended": {Phase: corev1.PodSucceeded, PodIPs: []corev1.PodIP{{IP: "10.2.0.5"}}},
	}
	objects := []client.Object{service}
	for name, status := range pods {
		objects = append(objects, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Status: status})
	}
	got := holders(t.Context(), fakeClient(t, objects...))
	if got["10.96.0.7"] != "service shop/db" || got["fd00::7"] != "service shop/db" || got["10.2.0.5"] != "shop/runs" {
		t.Errorf("%v", got)
	}
	forbidden := interceptor.NewClient(fakeClient(t, objects...), interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return errors.New("forbidden")
		},
	})
	if got := holders(t.Context(), forbidden); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
