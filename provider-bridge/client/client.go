// Package client speaks to the wisp API.
//
// Everything there is a document of some kind with a name of the caller's choosing, so five verbs are enough:
//
//	c, err := client.New(client.Config{Endpoint: "http://127.0.0.1:7480", Token: token})
//	lan := client.Ref{Namespace: "web", Name: "lan"}
//	_, err = client.Put(ctx, c, client.Networks, lan, client.Intent[client.NetworkSpec]{
//		Spec: client.NetworkSpec{CIDR: "10.1.0.0/24"}})
//	network, err := client.Wait(ctx, c, client.Networks, lan, client.Ready)
//
// Every verb of the API is idempotent, so every call is safe to repeat, and is repeated when asking again can help.
// What the service refuses comes back as a *Problem; errors.Is(err, client.CodeInUse) asks for one code.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config says where the service is and who is asking.
type Config struct {
	// Endpoint is http:// or https://, host and port.
	Endpoint string
	// Token is an API key.
	Token string
	// UserAgent is sent with every request; empty, it is the client's own.
	UserAgent string
	// Timeout ends one attempt of one request; zero means 30 s. A call may make several attempts: bound it by its context.
	Timeout time.Duration
}

// Client is safe for concurrent use.
type Client struct {
	endpoint *url.URL
	http     *http.Client
	// hold is how long the service is asked to hold one request of Wait.
	hold time.Duration
}

// New checks the configuration; it makes no request.
func New(config Config) (*Client, error) {
	endpoint, err := url.Parse(strings.TrimRight(config.Endpoint, "/"))
	if err != nil || endpoint.Host == "" || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
		return nil, fmt.Errorf("the endpoint %q is not like http://127.0.0.1:7480", config.Endpoint)
	}
	if config.Timeout <= 0 {
		config.Timeout = 30 * time.Second
	}
	if config.UserAgent == "" {
		config.UserAgent = "wisp-client-go"
	}
	return &Client{endpoint: endpoint, hold: min(config.Timeout/2, time.Minute), http: &http.Client{
		Transport: chain(config),
		// The API redirects nowhere; following one would carry the key to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// chain is what a request passes through, outermost first.
func chain(config Config) http.RoundTripper {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// Two, the default, would open and close a connection for nearly every request of a parallel apply.
	transport.MaxIdleConnsPerHost = 64
	return &headers{agent: config.UserAgent, token: config.Token,
		next: &retry{attempts: 8, first: 100 * time.Millisecond, most: 4 * time.Second,
			next: &whole{timeout: config.Timeout,
				next: transport}}}
}

// headers says who is asking.
type headers struct {
	agent, token string
	next         http.RoundTripper
}

func (h *headers) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("User-Agent", h.agent)
	request.Header.Set("Accept", "application/json, application/problem+json")
	request.Header.Set("Wisp-Version", Version)
	if h.token != "" {
		request.Header.Set("Authorization", "Bearer "+h.token)
	}
	return h.next.RoundTrip(request)
}

// whole ends an attempt that takes too long, and reads the answer to its end before it hands it on: an answer cut in
// the middle is then a failed attempt, like one that never came.
type whole struct {
	timeout time.Duration
	next    http.RoundTripper
}

// answerLimit is far above the largest page of the largest documents.
const answerLimit = 256 << 20

func (w *whole) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(request.Context(), w.timeout)
	defer cancel()
	response, err := w.next.RoundTrip(request.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

// call makes one request and decodes its answer into out, which may be nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, header http.Header, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	target := c.endpoint.JoinPath(path)
	target.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return err
	}
	for name := range header {
		request.Header.Set(name, header.Get(name))
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return problem(response, data)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not a document: %w", method, target.Path, err)
	}
	return nil
}
