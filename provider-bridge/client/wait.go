package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Goal is what Wait waits for.
type Goal string

const (
	// Ready: what is asked for now is there.
	Ready Goal = "ready"
	// Absent: nothing of that name is there.
	Absent Goal = "absent"
)

// FailedError says that what was asked for will not come about without a change.
type FailedError struct{ Condition Condition }

func (e *FailedError) Error() string {
	return fmt.Sprintf("failed: %s (%s)", e.Condition.Message, e.Condition.Reason)
}

// ErrReplaced says that the resource waited for is gone; one of the same name may have taken its place.
var ErrReplaced = errors.New("it has been deleted meanwhile")

// Wait returns when the goal is reached, when the resource has failed for good (*FailedError), or when ctx ends. The
// document is the last one seen, also beside an error; nil if none was, or if it is absent.
//
// The service holds each question until there is something to say. A service that restarts meanwhile, or cannot be
// reached, does not end the wait.
func Wait[S, B any, T Stateful](ctx context.Context, c *Client, k Kind[S, B, T], ref Ref, goal Goal) (*Document[S, B, T], error) {
	var last *Document[S, B, T]
	for {
		asked := time.Now()
		query := url.Values{"wait": {string(goal)}, "timeout": {strconv.Itoa(max(1, int(c.hold.Seconds())))}}
		doc, err := get(ctx, c, k, ref, query)
		if ctx.Err() != nil {
			return last, ctx.Err()
		}
		switch {
		case errors.Is(err, CodeNotFound), err == nil && ref.UID != "" && ref.UID != doc.UID:
			if goal == Absent {
				return nil, nil
			}
			return last, ErrReplaced
		case err == nil:
			if done, err := reached(doc, goal); done {
				return doc, err
			}
			last, ref.UID = doc, doc.UID
		case !passing(err):
			return last, err
		}
		// An answer that came at once was not held: do not ask in a tight circle.
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-time.After(max(0, 300*time.Millisecond-time.Since(asked))):
		}
	}
}

func reached[S, B any, T Stateful](doc *Document[S, B, T], goal Goal) (bool, error) {
	if goal == Absent {
		return false, nil
	}
	if doc.Condition(TypeDeleting).True() {
		return true, ErrReplaced
	}
	if failed := doc.Condition(TypeFailed); failed.True() && doc.Current() {
		return true, &FailedError{failed}
	}
	return doc.Condition(TypeReady).True() && doc.Current(), nil
}

// passing says whether an error may be over in a while: no answer, or one that a restarting service or its proxy gives.
func passing(err error) bool {
	var p *Problem
	if !errors.As(err, &p) {
		return true
	}
	return p.Retryable || p.Status >= http.StatusInternalServerError || p.Status == http.StatusTooManyRequests
}
