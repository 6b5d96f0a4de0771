package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var ctx = context.Background()

var lan = Ref{Namespace: "web", Name: "lan"}

const lanDocument = `{"kind": "network", "namespace": "web", "name": "lan", "uid": "u1", "generation": 1,
	"created_at": "2026-11-22T10:00:00Z", "updated_at": "2026-11-22T10:00:00Z", "metadata": {},
	"spec": {"cidr": "10.1.0.0/24", "dhcp": true, "nat": true, "dns_servers": []}, "binding": {"vni": 7},
	"status": {"observed_generation": 1, "mtu": 1450, "conditions": [
		{"type": "Ready", "status": "%s", "reason": "R", "message": "m", "since": "2026-11-22T10:00:00Z"}]}}`

// serve is a service that answers each request with what the test says; attempt counts from 1.
func serve(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, attempt int)) *Client {
	t.Helper()
	var attempts atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, int(attempts.Add(1)))
	}))
	t.Cleanup(server.Close)
	c, err := New(Config{Endpoint: server.URL + "/", Token: "wisp_k_s"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// loseAnswer is a service that ends without the first answer, refuses what is written after it, and shows this document.
func loseAnswer(t *testing.T, document string) *Client {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request, attempt int) {
		switch {
		case attempt == 1:
			panic(http.ErrAbortHandler)
		case r.Method != http.MethodGet:
			refuse(w, 412, "precondition_failed")
		default:
			say(w, 200, "%s", document)
		}
	})
}

func say(w http.ResponseWriter, status int, body string, args ...any) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, body, args...)
}

func refuse(w http.ResponseWriter, status int, code string) {
	say(w, status, `{"code": %q, "status": %d, "detail": "No.", "request_id": "r1", "errors": [{"pointer": "/spec/cidr", "code": "x", "detail": "Mend it."}]}`, code, status)
}

func putLan(c *Client, preconditions ...Precondition) (*Network, error) {
	return Put(ctx, c, Networks, lan, Intent[NetworkSpec]{Spec: NetworkSpec{CIDR: "10.1.0.0/24"}}, preconditions...)
}

func TestAPutSendsWhatWasSaidAndNoMore(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		body, _ := io.ReadAll(r.Body)
		if got := r.Method + " " + r.URL.Path + " " + string(body); got != `PUT /v1/namespaces/web/networks/lan {"metadata":{},"spec":{"cidr":"10.1.0.0/24"}}` {
			t.Error(got)
		}
		if r.Header.Get("Authorization") != "Bearer wisp_k_s" || r.Header.Get("If-None-Match") != "*" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Wisp-Version") != Version {
			t.Error(r.Header)
		}
		say(w, 201, lanDocument, "True")
	})
	network, err := putLan(c, IfAbsent)
	if err != nil || network.ETag() != `"u1-1"` || *network.Binding.VNI != 7 || !network.Condition(TypeReady).True() {
		t.Error(network, err)
	}
}

func TestAProblemIsTypedAndSaysWhatToDo(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { refuse(w, 422, "invalid") })
	_, err := Get(ctx, c, Networks, lan)
	var p *Problem
	if !errors.As(err, &p) || p.Status != 422 || p.Errors[0].Pointer != "/spec/cidr" || p.RequestID != "r1" {
		t.Fatal(err)
	}
	if !errors.Is(err, CodeInvalid) || errors.Is(err, CodeInUse) || !strings.Contains(err.Error(), "/spec/cidr: Mend it.") {
		t.Error(err)
	}
}

func TestAnAnswerOfSomethingElseIsNotTakenForTheService(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { say(w, 404, "<html>nginx</html>") })
	_, err := Get(ctx, c, Networks, lan)
	if errors.Is(err, CodeNotFound) || !strings.Contains(err.Error(), "proxy") {
		t.Error("a proxy's 404 would be taken for a deletion:", err)
	}
}

func TestWhatMayPassIsAskedAgain(t *testing.T) {
	for name, first := range map[string]func(w http.ResponseWriter){
		"no answer":         func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"cut in the middle": func(w http.ResponseWriter) { w.Header().Set("Content-Length", "999"); say(w, 200, "{") },
		"store_unavailable": func(w http.ResponseWriter) { refuse(w, 503, "store_unavailable") },
		"too_many_requests": func(w http.ResponseWriter) { refuse(w, 429, "too_many_requests") },
		"conflict":          func(w http.ResponseWriter) { refuse(w, 409, "conflict") },
	} {
		attempts := 0
		c := serve(t, func(w http.ResponseWriter, r *http.Request, attempt int) {
			attempts = attempt
			if body, _ := io.ReadAll(r.Body); len(body) == 0 {
				t.Errorf("%s: attempt %d has no body", name, attempt)
			}
			if attempt == 1 {
				first(w)
				return
			}
			say(w, 200, lanDocument, "True")
		})
		if _, err := putLan(c); err != nil || attempts != 2 {
			t.Errorf("%s: %v after %d attempts", name, err, attempts)
		}
	}
}

func TestWhatWillNotPassIsNotAskedAgain(t *testing.T) {
	for code, status := range map[string]int{"invalid": 422, "in_use": 409, "deleting": 409, "forbidden": 403, "internal": 500, "no_capacity": 507} {
		attempts := 0
		c := serve(t, func(w http.ResponseWriter, _ *http.Request, attempt int) {
			attempts = attempt
			refuse(w, status, code)
		})
		if _, err := putLan(c); !errors.Is(err, Code(code)) || attempts != 1 {
			t.Errorf("%s: %v after %d attempts", code, err, attempts)
		}
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	var first time.Time
	c := serve(t, func(w http.ResponseWriter, _ *http.Request, attempt int) {
		if attempt == 1 {
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			refuse(w, 503, "busy")
			return
		}
		if waited := time.Since(first); waited < time.Second {
			t.Errorf("asked again after %s", waited)
		}
		say(w, 200, lanDocument, "True")
	})
	if _, err := Get(ctx, c, Networks, lan); err != nil {
		t.Error(err)
	}
}

func TestTheContextEndsTheRetries(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Retry-After", "20")
		refuse(w, 503, "busy")
	})
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	started := time.Now()
	if _, err := Get(short, c, Networks, lan); err == nil || time.Since(started) > 10*time.Second {
		t.Error("it went on:", err)
	}
}

func TestALostAnswerToACreateIsSettledByLooking(t *testing.T) {
	for name, there := range map[string]struct {
		document string
		ours     bool
	}{
		"identical, with defaults filled in": {fmt.Sprintf(lanDocument, "True"), true},
		"somebody else's":                    {strings.Replace(fmt.Sprintf(lanDocument, "True"), `"nat": true`, `"nat": false`, 1), false},
		"going":                              {strings.Replace(fmt.Sprintf(lanDocument, "True"), `"Ready"`, `"Deleting"`, 1), false},
	} {
		c := loseAnswer(t, there.document)
		if network, err := putLan(c, IfAbsent); (err == nil) != there.ours || there.ours && network.UID != "u1" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutALostAnswerAnIdenticalDocumentIsNotOurs(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Method == http.MethodPut {
			refuse(w, 412, "precondition_failed")
			return
		}
		say(w, 200, lanDocument, "True")
	})
	if _, err := putLan(c, IfAbsent); !errors.Is(err, CodePreconditionFailed) {
		t.Error(err)
	}
}

func TestALostAnswerToAnUpdateIsOursOnlyIfItIsTheSameResource(t *testing.T) {
	for etag, ours := range map[string]bool{`"u1-0"`: true, `"u0-5"`: false} {
		c := loseAnswer(t, fmt.Sprintf(lanDocument, "True"))
		if _, err := putLan(c, IfMatch(etag)); (err == nil) != ours {
			t.Errorf("%s: %v", etag, err)
		}
	}
}

func TestALostAnswerToADeleteIsSettledByLooking(t *testing.T) {
	c := loseAnswer(t, strings.Replace(fmt.Sprintf(lanDocument, "True"), `"Ready"`, `"Deleting"`, 1)) // its generation has moved
	if err := Delete(ctx, c, Networks, lan, IfMatch(`"u1-0"`)); err != nil {
		t.Error(err)
	}
}

func TestARedirectDoesNotCarryTheKeyAway(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Error("asked with", r.Header.Get("Authorization"))
	}))
	defer thief.Close()
	c := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) { http.Redirect(w, r, thief.URL, http.StatusFound) })
	if _, err := Get(ctx, c, Networks, lan); err == nil {
		t.Error("it was followed")
	}
}

func TestAListSaysWhichAndReadsAPage(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if got := r.URL.String(); got != "/v1/namespaces/web/networks?after=x&limit=2&metadata.role=front" {
			t.Error(got)
		}
		say(w, 200, `{"items": [`+lanDocument+`], "revision": 9, "next": "y"}`, "True")
	})
	page, err := List(ctx, c, Networks, "web", Selection{Limit: 2, After: "x", Metadata: map[string]string{"role": "front"}})
	if err != nil || len(page.Items) != 1 || page.Next != "y" || page.Revision != 9 || page.Items[0].Spec.CIDR != "10.1.0.0/24" {
		t.Error(page, err)
	}
}

func TestClusterKindsLiveInNoNamespace(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Path != "/v1/nodes/n1" {
			t.Error(r.URL.Path)
		}
		say(w, 200, "{}")
	})
	if _, err := Get(ctx, c, Nodes, Ref{Namespace: "web", Name: "n1"}); err != nil {
		t.Error(err)
	}
}

func TestARawDocumentKeepsItsSectionsAsJSON(t *testing.T) {
	var doc RawDocument
	if err := json.Unmarshal([]byte(fmt.Sprintf(lanDocument, "True")), &doc); err != nil {
		t.Fatal(err)
	}
	if !doc.Condition(TypeReady).True() || !strings.Contains(string(doc.Status.JSON), `"mtu": 1450`) || string(doc.Binding) != `{"vni": 7}` {
		t.Error(doc)
	}
}

func TestAnEndpointThatIsNoneIsRefused(t *testing.T) {
	for _, endpoint := range []string{"", "127.0.0.1:7480", "ftp://h", "http://"} {
		if _, err := New(Config{Endpoint: endpoint}); err == nil {
			t.Errorf("%q passes", endpoint)
		}
	}
}
