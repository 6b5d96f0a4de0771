package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// retry asks again where that can help. All verbs are idempotent, so it may also when no answer came; but a request
// with a precondition may then have been carried out, and refuses itself the second time. So it notes in the context
// that an answer was lost, for the caller to settle by looking.
type retry struct {
	attempts    int
	first, most time.Duration
	next        http.RoundTripper
}

func (r *retry) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	for attempt := 0; ; attempt++ {
		again, err := repeat(request)
		if err != nil {
			return nil, err
		}
		response, err := r.next.RoundTrip(again)
		if ctx.Err() != nil && err != nil {
			return nil, err
		}
		pause, useful := worthwhile(response, err)
		if unanswered(response, err) {
			noteLost(ctx)
		}
		if !useful || attempt+1 >= r.attempts {
			return response, err
		}
		select {
		case <-ctx.Done():
			return response, err
		case <-time.After(max(pause, r.jitter(attempt))):
		}
	}
}

// jitter is anything up to the exponential bound, so that many who failed together do not return together.
func (r *retry) jitter(attempt int) time.Duration {
	return rand.N(min(r.first<<attempt, r.most))
}

// repeat gives a request a body of its own: the one before has been read.
func repeat(request *http.Request) (*http.Request, error) {
	again := request.Clone(request.Context())
	if request.GetBody == nil {
		return again, nil
	}
	body, err := request.GetBody()
	again.Body = body
	return again, err
}

// worthwhile says whether asking again may be answered otherwise, and what pause the service asks for.
func worthwhile(response *http.Response, err error) (time.Duration, bool) {
	if err != nil {
		return 0, true
	}
	switch response.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return min(retryAfter(response.Header), 30*time.Second), true
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return 0, true
	case http.StatusConflict: // in_use and deleting can take long: those are the caller's to wait out
		return 0, codeOf(response) == CodeConflict
	}
	return 0, false
}

// unanswered says whether the request may have been carried out all the same.
func unanswered(response *http.Response, err error) bool {
	return err != nil || response.StatusCode >= 502 && response.StatusCode <= 504
}

func retryAfter(header http.Header) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// codeOf looks into the body and puts it back.
func codeOf(response *http.Response) Code {
	body, _ := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(body))
	var p Problem
	_ = json.Unmarshal(body, &p)
	return p.Code
}

type lostKey struct{}

// noticing returns a context in which retry notes that an answer was lost.
func noticing(ctx context.Context) (context.Context, *bool) {
	lost := new(bool)
	return context.WithValue(ctx, lostKey{}, lost), lost
}

func noteLost(ctx context.Context) {
	if lost, ok := ctx.Value(lostKey{}).(*bool); ok {
		*lost = true
	}
}
