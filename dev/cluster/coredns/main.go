// CoreDNS with the plugins that its configuration in emsdev/dns.py names and no others: it builds in a minute or two.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// The order in which plugins see a query, whatever the order in the configuration.
	dnsserver.Directives = []string{"bind", "health", "ready", "errors", "hosts", "kubernetes", "template"}
	coremain.Run()
}
