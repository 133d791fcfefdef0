// Command scheduler measures what RouteTime costs kube-scheduler, and whether the near node is
// among those that it looks at:
//
//   - the score alone, in ns a node;
//   - RouteTime's share of a scheduling cycle of kube-scheduler with all its default plugins;
//   - how often the best node of the whole cluster was in the sample, with near nodes brought into it
//     and without;
//   - the whole scheduler, as a process of its own, against a kube-apiserver and an etcd with fake
//     Node objects and a stream of pods: the default profile, with RouteTime (without and with
//     peers), with NetworkOverhead and with TargetLoadPacking of sigs.k8s.io/scheduler-plugins.
//
// All profiles of one round run one after the other before the next round; medians over the rounds
// are reported, beside those of the default profile of the same run.
package main
