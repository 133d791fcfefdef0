// Package controller does the few things of a move that only the API server can do: it
// judges a PodMigration, gives out its epoch, makes the replacement pod, aborts when the
// pod or its owner changes their mind, puts the replacement into its owner's hands and
// clears up. It never commits: that is the target's agent's to do.
//
// Every step is found by looking at the objects, never by memory, and can be done twice
// without harm: a controller that dies anywhere is continued by the next. All reads are
// live, all writes that another program could race with are guarded by resourceVersion or
// UID, and an answer that was lost means: look again.
package controller
