package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func document(ready string) string { return strings.Replace(lanDocument, "%s", ready, 1) }

func TestAWaitEndsWhenWhatIsAskedForNowIsThere(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request, attempt int) {
		if r.URL.Query().Get("wait") != "ready" || r.URL.Query().Get("timeout") != "15" {
			t.Error(r.URL)
		}
		switch attempt {
		case 1:
			say(w, 200, "%s", document("False"))
		case 2: // ready, but for what was asked for before
			say(w, 200, "%s", strings.Replace(document("True"), `"generation": 1`, `"generation": 2`, 1))
		case 3, 4, 5: // the service restarts, for longer than one call goes on trying
			panic(http.ErrAbortHandler)
		default:
			say(w, 200, "%s", document("True"))
		}
	})
	c.http.Transport.(*headers).next.(*retry).attempts = 1
	network, err := Wait(ctx, c, Networks, lan, Ready)
	if err != nil || !network.Condition(TypeReady).True() || network.Generation != 1 {
		t.Error(network, err)
	}
}

func TestAFailureForGoodEndsTheWaitWithItsReason(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		say(w, 200, "%s", strings.Replace(document("True"), `"Ready"`, `"Failed"`, 1))
	})
	network, err := Wait(ctx, c, Networks, lan, Ready)
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Condition.Reason != "R" || network == nil {
		t.Error(err)
	}
}

func TestAFailureOfWhatWasAskedForBeforeDoesNot(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request, attempt int) {
		if attempt == 1 {
			say(w, 200, "%s", strings.NewReplacer(`"Ready"`, `"Failed"`, `"generation": 1`, `"generation": 2`).Replace(document("True")))
			return
		}
		say(w, 200, "%s", document("True"))
	})
	if _, err := Wait(ctx, c, Networks, lan, Ready); err != nil {
		t.Error(err)
	}
}

func TestAWaitThatRunsOutReturnsTheLastDocument(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { say(w, 200, "%s", document("False")) })
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	network, err := Wait(short, c, Networks, lan, Ready)
	if !errors.Is(err, context.DeadlineExceeded) || network == nil || network.Condition(TypeReady).Message != "m" {
		t.Error(network, err)
	}
}

func TestWhatIsGoneOrAnotherEndsTheWait(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"gone":    func(w http.ResponseWriter) { refuse(w, 404, "not_found") },
		"another": func(w http.ResponseWriter) { say(w, 200, "%s", strings.Replace(document("False"), "u1", "u2", 1)) },
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w) })
		mine := Ref{Namespace: "web", Name: "lan", UID: "u1"}
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if _, err := Wait(bounded, c, Networks, mine, Ready); !errors.Is(err, ErrReplaced) {
			t.Errorf("%s, waiting for ready: %v", name, err)
		}
		if _, err := Wait(bounded, c, Networks, mine, Absent); err != nil {
			t.Errorf("%s, waiting for absent: %v", name, err)
		}
	}
}

func TestARefusalEndsTheWait(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { refuse(w, 401, "unauthenticated") })
	if _, err := Wait(ctx, c, Networks, lan, Ready); !errors.Is(err, CodeUnauthenticated) {
		t.Error(err)
	}
}
