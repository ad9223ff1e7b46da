package config

import (
	"fmt"
	"net/url"
	"strings"
)

// maxOrigins bounds http.cors_origins.
const maxOrigins = 100

func (c *Config) originProblems() []Problem {
	const setting = "http.cors_origins"
	var found []Problem
	if n := len(c.HTTP.CORSOrigins); n > maxOrigins {
		found = append(found, Problem{Setting: setting, What: fmt.Sprintf("has %d origins, more than %d", n, maxOrigins), Next: "name fewer"})
	}
	for _, o := range c.HTTP.CORSOrigins {
		if err := checkOrigin(o); err != nil {
			found = append(found, Problem{
				Setting: setting, What: fmt.Sprintf("%q is no origin: %v", o, err),
				Why:  "a browser's Origin header is compared with it as it is",
				Next: "write it as the browser does, such as https://app.example or http://localhost:3000",
			})
		}
	}
	return found
}

// checkOrigin says what keeps s from being an origin as browsers write them:
// scheme://host or scheme://host:port in small letters, and nothing more.
func checkOrigin(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return err
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("it does not begin with http:// or https://")
	case u.Hostname() == "" || strings.Contains(s, "*"):
		return fmt.Errorf("it names no host")
	case s != u.Scheme+"://"+u.Host:
		return fmt.Errorf("it has more than a host and a port")
	case s != strings.ToLower(s):
		return fmt.Errorf("it has capital letters")
	case u.Port() == map[string]string{"http": "80", "https": "443"}[u.Scheme]:
		return fmt.Errorf("a browser leaves the port %s out", u.Port())
	}
	return nil
}
